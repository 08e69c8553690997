from __future__ import annotations

import inspect

from tools import reference


def _shown(function: object) -> str:
    return reference._call("f", inspect.signature(function))  # type: ignore[arg-type]


def test_a_signature_reads_as_it_is_written() -> None:
    def short(a: int, *, b: str | None = None, **rest: object) -> None: ...

    assert _shown(short) == "f(a: int, *, b: str | None = None, **rest: object)"


def test_a_long_signature_has_a_line_for_each_parameter() -> None:
    def long(
        the_first_of_them: str,
        the_second_of_them: str,
        and_the_last_of_them: int,
        *,
        none_of_them: None = None,
    ) -> str: ...

    assert _shown(long).splitlines()[1] == "    the_first_of_them: str,"
    assert _shown(long).endswith(") -> str")


def test_every_command_is_listed_with_its_options() -> None:
    page = reference.cli()
    assert "\n### llmos job submit\n" in page
    assert "| `--keep-alive" in page[page.index("## llmos load\n") :]


def test_the_client_has_its_groups_and_what_a_call_raises() -> None:
    page = reference.python()
    assert "### client.models.pull" in page
    assert "Raises ModelNotFound, Conflict while it is in use." in page
