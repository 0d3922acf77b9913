"""Private names of jsonargparse."""

from jsonargparse import ArgumentParser


def remove_links(parser: ArgumentParser, target: str) -> None:
    """Remove the links to an argument; there is no public function (4.53.0)."""
    links = parser._links_group._group_actions  # type: ignore[attr-defined]
    links[:] = [link for link in links if link.target[0] != target]


def rename_group(parser: ArgumentParser, name: str, new: str) -> None:
    """Rename a group of arguments, so that the options of a subcommand may have its name, too (4.53.0)."""
    groups = parser.groups or {}
    groups[new] = groups.pop(name)
