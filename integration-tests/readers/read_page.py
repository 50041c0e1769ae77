#!/usr/bin/env python3
"""Reads an HTML report as a browser's parser would, and fails on what a browser would pass over.

Every tag must be closed in order, every `id` be there once, every reference lead to an `id` of the
page, and nothing be asked for from outside. Prints how many pictures of each type there are, as JSON.
"""

import base64
import collections
import html.parser
import json
import sys

VOID = {"meta", "br", "hr", "img", "input", "link"}
ADDRESSES = {"href", "src", "xlink:href", "data", "action", "poster", "srcset"}


class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.open = []
        self.ids = collections.Counter()
        self.references = []
        self.pictures = collections.Counter()
        self.faults = []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        if tag in {"script", "link", "iframe", "object"}:
            self.faults.append(f"a page needs no `{tag}`")
        for name, value in attributes:
            if name == "id":
                self.ids[value] += 1
            if name in ADDRESSES:
                self.take_address(value or "")

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"`{tag}` ends at {self.getpos()} where it did not begin")

    def take_address(self, address):
        if address.startswith("#"):
            self.references.append(address[1:])
        elif address.startswith("data:image/"):
            kind, data = address.removeprefix("data:image/").split(";base64,")
            begins = base64.b64decode(data, validate=True)[:4]
            expected = {"png": b"\x89PNG", "jpeg": b"\xff\xd8\xff"}[kind]
            if not begins.startswith(expected):
                self.faults.append(f"a picture is no {kind}: it begins with {begins!r}")
            self.pictures[kind] += 1
        else:
            self.faults.append(f"`{address[:60]}` is outside the page")


def main():
    page = Page()
    with open(sys.argv[1], encoding="utf-8") as file:
        text = file.read()
    page.feed(text)
    page.close()
    if "url(" in text or "@import" in text:
        page.faults.append("a style asks for something")
    page.faults += [f"`{tag}` is never closed" for tag in page.open]
    page.faults += [f"id `{name}` is there {count} times" for name, count in page.ids.items() if count > 1]
    page.faults += [f"nothing is called `{name}`" for name in page.references if name not in page.ids]
    print(json.dumps(page.pictures))
    for fault in page.faults:
        print(fault, file=sys.stderr)
    sys.exit(1 if page.faults else 0)


if __name__ == "__main__":
    main()
