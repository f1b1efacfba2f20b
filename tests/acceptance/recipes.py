"""What docs/tables.md tells whoever runs a job system, taken from the page: its settings, and what its workers run."""

import re
import tomllib
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "tables.md"

# All that a schema is made of, a line each.
SCHEMA = """
    SELECT array_agg(line ORDER BY line)
    FROM (
        SELECT format(
            '%s.%s %s %s %s', a.attrelid::regclass, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
            pg_get_expr(d.adbin, d.adrelid)
        )
        FROM pg_attribute AS a
        JOIN pg_class AS c ON c.oid = a.attrelid AND c.relnamespace = 'public'::regnamespace
        LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        UNION ALL SELECT pg_get_indexdef(indexrelid) FROM pg_index JOIN pg_class AS c ON c.oid = indexrelid
            WHERE c.relnamespace = 'public'::regnamespace
        UNION ALL SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace
        UNION ALL SELECT pg_get_triggerdef(t.oid) FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
            WHERE c.relnamespace = 'public'::regnamespace
        UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    ) AS lines (line)
"""


def block(system: str, language: str) -> str:
    """Return the page's block in this language for this job system."""
    section = PAGE.read_text(encoding="utf-8").partition(f"\n### {system}\n")[2].partition("\n##")[0]
    (found,) = re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert isinstance(found, str)
    return found


def settings_file(system: str, folder: Path) -> Path:
    """Write the page's settings for this job system to a file, and return it."""
    path = folder / "liveness.toml"
    path.write_text(block(system, "toml"), encoding="utf-8")
    assert tomllib.loads(path.read_text(encoding="utf-8"))
    return path


def code(system: str) -> dict[str, Any]:
    """Run the page's Python for this job system, and return what it defines."""
    names: dict[str, Any] = {}
    exec(compile(block(system, "python"), str(PAGE), "exec"), names)  # noqa: S102 - it is ours, and the point
    return names
