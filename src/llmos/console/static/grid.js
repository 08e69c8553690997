// A table of plain HTML: sorting by buttons, choosing by boxes, a row opened by its first cell.
const h = (...args) => Vue.h(...args);

function cell(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "object") return String(value);
  if (value.chip !== undefined) return h("span", { class: `chip ${value.tone || ""}` }, value.chip);
  if (value.bar !== undefined) {
    const width = `${Math.round(100 * Math.max(0, Math.min(1, value.bar)))}%`;
    return h("span", { class: "meter" }, [h("i", [h("b", { style: { width } })]), h("em", value.text || width)]);
  }
  return h("span", { class: value.look || "", title: value.title }, value.text);
}

export default {
  props: { caption: String, columns: Array, rows: Array, sort: Array, chosen: Array, words: Object, opens: Boolean },
  emits: ["sort", "choose", "open"],
  methods: {
    choose(id, on) {
      const rest = (this.chosen || []).filter((other) => other !== id);
      this.$emit("choose", on ? [...rest, id] : rest);
    },
    chooseAll(on) {
      this.$emit("choose", on ? this.rows.map((row) => row.id) : []);
    },
    header(column) {
      const [by, down] = this.sort || [];
      const is = by === column.name;
      const order = is ? (down ? "descending" : "ascending") : "none";
      const props = { scope: "col", class: column.look || "" };
      if (!column.sorts) return h("th", props, column.label);
      const arrow = h("span", { "aria-hidden": "true", class: "arrow" }, is ? (down ? "↓" : "↑") : "");
      const press = () => this.$emit("sort", [column.name, is ? !down : false]);
      return h("th", { ...props, "aria-sort": order }, h("button", { type: "button", onClick: press }, [column.label, arrow]));
    },
    first(row, column) {
      const shown = cell(row.cells[column.name]);
      if (!this.opens) return h("th", { scope: "row", class: column.look || "" }, shown);
      const open = (event) => {
        event.stopPropagation();
        this.$emit("open", row.id);
      };
      const button = h("button", { type: "button", class: "open", onClick: open }, shown);
      return h("th", { scope: "row", class: column.look || "" }, button);
    },
    line(row) {
      const chosen = (this.chosen || []).includes(row.id);
      const [head, ...rest] = this.columns;
      const cells = [this.first(row, head), ...rest.map((c) => h("td", { class: c.look || "" }, cell(row.cells[c.name])))];
      if (this.chosen) {
        const label = `${this.words.choose} ${row.name || row.id}`;
        const change = (event) => this.choose(row.id, event.target.checked);
        const box = h("input", { type: "checkbox", checked: chosen, "aria-label": label, onChange: change });
        cells.unshift(h("td", { class: "box", onClick: (event) => event.stopPropagation() }, box));
      }
      const open = this.opens ? () => this.$emit("open", row.id) : undefined;
      return h("tr", { key: row.id, class: { chosen, opens: this.opens, [row.look || ""]: true }, onClick: open }, cells);
    },
  },
  render() {
    const heads = this.columns.map((column) => this.header(column));
    if (this.chosen) {
      const all = this.rows.length > 0 && this.rows.every((row) => this.chosen.includes(row.id));
      const change = (event) => this.chooseAll(event.target.checked);
      const box = h("input", { type: "checkbox", checked: all, "aria-label": this.words.all, onChange: change });
      heads.unshift(h("td", { class: "box" }, box));
    }
    const empty = h("tr", [h("td", { class: "empty", colspan: heads.length }, this.words.empty)]);
    return h("div", { class: "grid-box", tabindex: "0", role: "region", "aria-label": this.caption }, [
      h("table", { class: "grid" }, [
        h("thead", [h("tr", heads)]),
        h("tbody", this.rows.length ? this.rows.map((row) => this.line(row)) : [empty]),
      ]),
    ]);
  },
};
