// What a page does by itself: shortcuts, links out of answers, the banner while the server is away.
(() => {
  const said = window.llmos || {};

  const isTyping = (element) =>
    element && (element.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(element.tagName));

  let isGoing = false;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") document.querySelector("[data-stop]:not([disabled])")?.click();
    if (isTyping(event.target)) return;
    if (isGoing) {
      isGoing = false;
      const item = document.querySelector(`.menu [data-key="${CSS.escape(event.key)}"]`);
      if (item) {
        event.preventDefault();
        location.href = item.getAttribute("href");
      }
    } else if (event.key === "g") {
      isGoing = true;
      setTimeout(() => (isGoing = false), 1500);
    } else if (event.key === "/") {
      const field = document.querySelector("[data-write]");
      if (field) {
        event.preventDefault();
        field.focus();
      }
    } else if (event.key === "?") {
      document.querySelector("[data-shortcuts]")?.click();
    }
  });

  // an answer's links lead out in a tab of their own, which learns nothing of this page
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.(".answer a[href]");
    if (!link) return;
    event.preventDefault();
    window.open(link.href, "_blank", "noopener,noreferrer");
  });

  // an answer grows: stay at its end unless the reader has scrolled up
  const follow = (box) => {
    let atEnd = true;
    box.addEventListener("scroll", () => {
      atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 48;
    });
    new MutationObserver(() => {
      if (atEnd) box.scrollTop = box.scrollHeight;
    }).observe(box, { childList: true, subtree: true, characterData: true });
  };

  const ready = () => {
    document.querySelectorAll("[data-follow]").forEach((box) => {
      if (!box.dataset.followed) {
        box.dataset.followed = "1";
        follow(box);
      }
    });
  };
  new MutationObserver(ready).observe(document.documentElement, { childList: true, subtree: true });

  document.addEventListener("DOMContentLoaded", () => {
    const popup = document.getElementById("popup");
    if (popup && said.lost) {
      popup.setAttribute("role", "status");
      const [first, second] = popup.querySelectorAll("span");
      first.textContent = said.lost;
      second.textContent = said.trying;
    }
  });

  // a session that ends while the page is open
  if (said.expires) {
    const check = () => {
      const left = said.expires * 1000 - Date.now();
      if (left <= 0) location.href = "/login?expired=1&next=" + encodeURIComponent(location.pathname);
      else setTimeout(check, Math.min(left + 50, 3600000));
    };
    check();
  }

  // pages that nobody looks at are not kept up to date
  document.addEventListener("visibilitychange", () => {
    if (window.emitEvent && window.socket?.connected) emitEvent("llmos_visible", !document.hidden);
  });
})();
