from __future__ import annotations

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from llmos.storage import migrations
from llmos.storage.database import open_database
from llmos.storage.home import Home
from llmos.storage.tables import metadata


def test_head_is_the_newest_script() -> None:
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert scripts.get_heads() == [migrations.HEAD]


def test_from_nothing_to_head_gives_the_tables(opened: Home) -> None:
    database = open_database(opened.db)
    assert database.write_now(migrations.find_revision) == migrations.HEAD

    def compare(connection: object) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})  # type: ignore[arg-type]
        return list(compare_metadata(context, metadata))

    assert database.write_now(compare) == []
    database.close()
