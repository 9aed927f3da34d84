"""Label selectors that the API server takes, and others with what is wrong with each."""

from __future__ import annotations

from typing import Final

GOOD: Final = [
    "team=vision",
    "team==vision,stage!=test",
    "team",
    "!team",
    "! team , stage",
    "team in (a)",
    "team in (a, b),stage notin (test,)",
    "team in (,a)",
    "team=",
    "team in ()",
    "team notin ( )",
    "team=,stage",
    "in in (in)",
    "notin=in",
    "example.com/team.name_1=V-1",
    "priority>5,priority < 10",
    "priority>9223372036854775807,priority<-9223372036854775808",
    "   ",
    "team\r\n=\tvision",
]
BAD: Final = [
    ("team in (a", "the end where a comma or ) is expected after in"),
    ("team in a", "'a' where ( is expected after in"),
    ("team notin (a b)", "'b' where a comma or ) is expected after notin"),
    ("team in (a=b)", "'=' where a comma"),
    ("team=a b", "'b' where a comma or the end is expected"),
    ("team=a,", "the end where a label's key is expected"),
    (",team", "',' where a label's key is expected"),
    ("!", "the end where a label's key is expected"),
    ("!team=a", "'=' where a comma or the end is expected"),
    ("team=a=b", "'=' where a comma or the end is expected"),
    ("team!=!a", "'!' is no label value"),
    ("-team=a", "'-team' is no label key"),
    ("/team", "'/team' is no label key"),
    ("Example.com/team", "'Example.com/team' is no label key"),
    ("a/b/c", "'a/b/c' is no label key"),
    ("team=" + "a" * 64, "is no label value"),
    ("a" * 64, "is no label key"),
    ("team=größe", "'größe' is no label value"),
    ("priority>high", "'high' where a number is expected after >"),
    ("priority>\u0663", "where a number is expected after >"),
    ("priority>9223372036854775808", "where a number is expected after >"),
    ("team=vision,\u00a0stage", "is no label key"),
    ("team in (vision)\u2003", "where a comma or the end is expected"),
    ("team)", "')' where a comma or the end is expected"),
]
