"""The order of the folders of src/: prints each #include that breaks it, and fails if there is one.

A file includes headers of its own folder, and of each folder above it in the list the one that is for others,
<folder>/<folder>.h.  A folder's own header includes its other headers that others may use; no header is included as
if it lay beside the file.  pgmq.c and xact.c may include every folder's header.

    python3 test/includes.py [SRC]
"""
import pathlib
import re
import sys

FOLDERS = 'base queue position wait notify policy message group stream topic admin upkeep'.split()
EVERYTHING = {'pgmq.c', 'xact.c'}       # above all folders
GROUND = {'pgmq.h', 'compat.h'}         # below all folders


def complaint(folder, name, header):
    """What is wrong about an include of a file in this folder ('' at the top); None: nothing"""
    if header in GROUND:
        return None
    if '/' not in header:
        return None if not folder and name in EVERYTHING else 'write it as <folder>/<header>'
    there, short = header.split('/', 1)
    if there == folder:
        return None
    if there not in FOLDERS:
        return f'{there}/ is not in the list of folders'
    if short != there + '.h':
        return f'{there}/{there}.h is what other folders include'
    if folder and FOLDERS.index(there) > FOLDERS.index(folder):
        return f'{there}/ stands below {folder}/ in the list'
    if not folder and name not in EVERYTHING:
        return 'what all files need includes no folder'
    return None


def main(src):
    bad = 0
    files = sorted(src.rglob('*.[ch]'))
    if not files:
        sys.exit(f'{src}: no sources')
    for file in files:
        parts = file.relative_to(src).parts
        folder = parts[0] if len(parts) > 1 else ''
        if folder and folder not in FOLDERS:
            print(f'{file}: {folder}/ is not in the list of folders')
            bad += 1
            continue
        for number, line in enumerate(file.read_text().splitlines(), 1):
            found = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
            header = found and found.group(1)
            # The others are the server's
            if not header or not ((src / header).exists() or (file.parent / header).exists()):
                continue
            wrong = complaint(folder, file.name, header)
            if wrong:
                print(f'{file}:{number}: #include "{header}": {wrong}')
                bad += 1
    return 1 if bad else 0


if __name__ == '__main__':
    sys.exit(main(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else 'src')))
