"""What a name, an id, an incarnation or a reason may hold: whoever may publish it chooses it."""

HOSTILE = (
    "<script>alert(1)</script>",
    "[red]x[/red]",
    "[link=http://elsewhere]here[/link]",
    "\x1b[2J\x1b]0;title\x07",
    "\x9b31m",
    "line\nfake line",
    "line\rfake",
    "line\x85\u2028\u2029fake",
    "\u202egnp.exe",
    "\u2066w\u2069\u200b\ufeff",
    "nul\x00 del\x7f tab\t",
    "';DROP TABLE worker;--",
    "{worker_table} $1 %s %(x)s {0}",
    "\U000e0041tag",
    "x" * 10_000,
)
