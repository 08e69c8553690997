"""The site of the documents in both languages: `python tools/docsite.py [FOLDER]` (build/site).

Pages link to files beside `docs/`: pictures and models' cards are taken along; of source code the
site keeps the name alone. A Chinese page stands beside its English one, as NAME.zh.md. MkDocs calls
the functions that begin with `on_` (`hooks:` of mkdocs.yml).
"""

from __future__ import annotations

import os
import posixpath
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = {"en": "mkdocs.yml", "zh": "mkdocs.zh.yml"}
FOLDERS = {"en": "", "zh": "zh/"}
LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<to>\.\./[^)\s]+)\)")
FENCE = re.compile(r"(^```.*?^```)", re.MULTILINE | re.DOTALL)
BROKEN = re.compile(
    "(?<=[\u3001-\u303f\u4e00-\u9fff\uff00-\uffef])\n(?=[\u4e00-\u9fff\uff00-\uffef])"
)
"""The end of a line between Chinese characters, which a browser would show as a space."""

FRONT = re.compile(r"\A---\n.*?^---\n", re.MULTILINE | re.DOTALL)
PICTURES = frozenset({".png", ".svg"})


def build(folder: Path) -> None:
    """Both languages, the Chinese one inside. Raises CalledProcessError at the first warning."""
    for language, config in CONFIGS.items():
        target = folder if language == "en" else folder / language
        command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--clean"]
        subprocess.run(
            [*command, "--config-file", config, "--site-dir", str(target.resolve())],
            cwd=ROOT,
            env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
            check=True,
        )


def on_files(files: Files, *, config: Any, **_: Any) -> Files:
    """Take along what pages link to beside `docs/`."""
    for file in list(files.documentation_pages()):
        for match in LINK.finditer(file.content_string):
            path = _outside(file.src_uri, match["to"])
            if path is None or not _is_taken(path) or files.get_file_from_path(_uri(path)):
                continue
            files.append(_taken(config, path))
    return files


def on_page_read_source(page: Any, *, config: Any, **_: Any) -> str | None:
    """The page in the language of the site, where there is one; None: as MkDocs would."""
    source = page.file.abs_src_path
    if config.theme["language"] == "zh" and source is not None:
        chinese = Path(source).with_suffix(".zh.md")
        if chinese.exists():
            return chinese.read_text("utf-8")
    return None


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Links to what was taken along, and names of what was not; Chinese lines without gaps."""
    here = page.file.src_uri

    def one(match: re.Match[str]) -> str:
        path = _outside(here, match["to"])
        if path is None:
            return match[0]
        if not _is_taken(path):
            return match["text"]
        to = posixpath.relpath(_uri(path), posixpath.dirname(here))
        return f"{match['picture']}[{match['text']}]({to})"

    return "".join(
        part.replace("```console", "```bash", 1)  # ours have no prompt, which Pygments waits for
        if part.startswith("```")
        else BROKEN.sub("", LINK.sub(one, part))
        for part in FENCE.split(markdown)
    )


def on_post_page(output: str, *, page: Any, config: Any, **_: Any) -> str:
    """The same page in the other language, by a path that holds wherever the site lies."""
    return _switched(output, page.url, config.theme["language"])


def on_post_template(output_content: str, *, template_name: str, config: Any, **_: Any) -> str:
    """Of a page that is none, such as `404.html`, the first page in the other language."""
    return _switched(output_content, "index.html", config.theme["language"])


def _switched(output: str, url: str, language: str) -> str:
    """The theme leaves a link with a scheme of its own as it is; here it gets its path."""
    folder = posixpath.dirname(FOLDERS[language] + url)
    for other, there in FOLDERS.items():
        output = output.replace(f"alternate:{other}", posixpath.relpath(there + url, folder or "."))
    return output


def _taken(config: Any, path: str) -> File:
    """A picture as it is, a card without the lines that are for machines."""
    if path.endswith(".md"):
        text = FRONT.sub("", (ROOT / path).read_text("utf-8"))
        return File.generated(config, _uri(path), content=text)
    return File.generated(config, _uri(path), abs_src_path=str(ROOT / path))


def _outside(here: str, to: str) -> str | None:
    """The path from the root of what is linked to, unless it lies in `docs/`."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(here), to.partition("#")[0]))
    return None if path.startswith("docs/") else path


def _is_taken(path: str) -> bool:
    return Path(path).suffix in PICTURES or path.endswith("/README.md")


def _uri(path: str) -> str:
    """Where it lies in the site."""
    folder, name = posixpath.split(path)
    if name == "README.md":
        return f"cards/{posixpath.basename(folder)}.md"
    return f"pictures/{name}"


if __name__ == "__main__":
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "site")
