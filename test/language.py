"""What readers trip over, in the files given: python3 test/language.py README.md docs/*.md src/*/*.[ch] sql/*.sql

Of C files and SQL files it reads the comments, the texts of errors and settings, and COMMENT ON.

Each finding is a line "file:line: reason: text".  The rules are those of how we write: a sentence says who does
what, in at most 25 words; no idioms; no "who" or "he" for a session.  Links have to lead somewhere.
"""
import os
import re
import sys

# Files and folders that are not clean yet.  This list may only become shorter.
NOT_YET = set()

MOST_WORDS = 25
PATTERNS = [(re.compile(pattern, re.I), reason) for pattern, reason in [
    (r"(?<!people )(?<!readers )(?<!users )\bwho(ever)?\b(?![^.]*\?)", "say which session, role or worker, not \"who\""),
    (r"\b(he|him|his|she|her|somebody|someone|nobody|anybody|everybody)\b(?![^.]*\?)", "name the session, role or worker"),
    (r"\bto be had\b", "available"),
    (r"\bbut for\b", "except"),
    (r"\b(put|puts) off\b", "defer"),
    (r"\b(see|sees) to\b", "handle"),
    (r"\bso (many|much|long) as\b", "at most, as many as, as long as"),
    (r"\bin front\b", "say before what, of time"),
    (r"\b(walk|walks|walked)\b", "scan"),
    (r"\b(is|are) not there\b", "is missing"),
    (r"\bin any case\b", "always, or in upper or lower case"),
    (r"\bfor nothing\b", "free of charge, or to no effect"),
    (r"\bin vain\b", "to no effect"),
    (r"\b(pass|passes|passed) (by|over)\b", "skip"),
    (r"\bas a rule\b", "usually"),
    (r"\bwhat goes\b|\bgoes by\b", "say what happens"),
    (r"\btheirs\b|\bpublished extension\b|\bpopular\b[^.]*\bextension\b|\bolder version\b", "the PL/pgSQL extension"),
    (r"\bone that\b[^.]*\bone that\b", "name the things"),
    (r"^(so|also|nor) (is|are|does|do|when)\b", "a sentence of its own"),
    (r"\bhas (a|an|the) \w+ (get|look|learn|read)\b", "causative has"),
]]


def blocks(lines):
    """(first line's number, text, kind) of each paragraph, item, heading and row; no code"""
    fenced, start, text = False, 0, []
    for number, line in enumerate(lines + [""], 1):
        line = line.rstrip("\n")
        if line.startswith("```"):
            fenced = not fenced
            line = ""
        elif fenced or line.startswith("    ") and not text:
            continue
        new = not line.strip() or re.match(r"(#+ |\||\s*([-*]|\d+\.) )", line)
        if new and text:
            yield start, " ".join(text)
            text = []
        if line.strip():
            if not text:
                start = number
            text.append(line.strip())


def comments(text, sql):
    """(line, text) of each comment and of each text that a user may see"""
    if sql:
        token = r"(?P<line>(?:^[ \t]*--[^\n]*\n)+)|\bIS '(?P<text>(?:[^']|'')*)';|'(?:[^']|'')*'|\$\$.*?\$\$"
    else:
        token = r'/\*(?P<block>.*?)\*/|(?P<text>(?:"(?:[^"\\\n]|\\.)*"[ \t\n]*(?:PRI\w+ )?)+)|\'(?:[^\'\\]|\\.)+\''
    for found in re.finditer(token, text, re.S | re.M):
        number = text.count("\n", 0, found.start()) + 1
        for name, value in found.groupdict().items():
            if not value:
                continue
            if name == "text" and not sql:
                # Texts for people: what errmsg() and its like get, and the descriptions of settings
                before = text[max(0, found.start() - 250):found.start()]
                if not re.search(r"\b(err(msg|detail|hint|context)\w*|elog|DefineCustom\w+Variable)\([^;]*$", before):
                    continue
                value = "".join(re.findall(r'"((?:[^"\\\n]|\\.)*)"', value))
            if name == "block":
                value = re.sub(r"^[ \t]*\*+(?!/)", "", value, flags=re.M)
            if name == "line":
                value = re.sub(r"^[ \t]*--", "", value, flags=re.M)
            # A comment's paragraphs and items; what is indented is an example
            start, part = number, []
            for at, line in enumerate((value + "\n\n").split("\n"), number):
                if part and (not line.strip() or re.match(r"\s*([-*]|\d{1,2}[.)]) ", line)):
                    yield start, " ".join(part)
                    part = []
                if re.match(r"\t| {5,}", line) and not part and name != "text":
                    continue
                if line.strip():
                    if not part:
                        start = at
                    part.append(line.strip())


def plain(text):
    """Without markup; code counts as one word"""
    text = re.sub(r"!?\[([^]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"`[^`]*`", "code", text)
    return re.sub(r"^(#+|[-*]|\d+\.) |\*\*", "", text)


def sentences(text):
    cells = text.strip("|").split("|") if text.startswith("|") else [text]
    for cell in cells:
        yield from re.split(r"(?:(?<=[.:;!?])|(?<=[.:;!?]\))) +(?=\S)", plain(cell.strip()))


def anchors(path, known={}):
    if path not in known:
        found, seen = set(), {}
        with open(path, encoding="utf-8") as file:
            text = re.sub(r"^```.*?^```", "", file.read(), flags=re.S | re.M)
        for heading in re.findall(r"^#+ (.*)$", text, re.M):
            name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
            found.add(name + ("-%d" % seen[name] if name in seen else ""))
            seen[name] = seen.get(name, 0) + 1
        known[path] = found
    return known[path]


def bad_links(path, text):
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        file = os.path.normpath(os.path.join(os.path.dirname(path), file)) if file else path
        if not os.path.exists(file):
            yield "no such file: " + target
        elif anchor and anchor not in anchors(file):
            yield "no such heading: " + target


def findings(path):
    with open(path, encoding="utf-8") as file:
        lines = file.readlines()
    source = not path.endswith(".md")
    for number, text in comments("".join(lines), path.endswith(".sql")) if source else blocks(lines):
        if text.startswith("|--") or not text:
            continue
        for sentence in sentences(text):
            words = len(re.findall(r"[\w/'’-]+", sentence))
            if words > MOST_WORDS:
                yield number, "%d words" % words, sentence
            for pattern, reason in PATTERNS:
                if pattern.search(sentence):
                    yield number, reason, sentence


def main():
    bad = 0
    for path in sys.argv[1:]:
        found = list(findings(path))
        if path in NOT_YET or os.path.dirname(path) in NOT_YET:
            found = []
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file if path.endswith(".md") else [], 1):
                found += [(number, "link", reason) for reason in bad_links(path, line)]
        for number, reason, sentence in found:
            print("%s:%d: %s: %s" % (path, number, reason, sentence))
        bad += len(found)
    sys.exit(bad > 0)


main()
