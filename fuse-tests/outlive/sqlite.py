"""Commits numbers until standard input ends; fails where a commit does, or where not all are there once."""

import os
import select
import sqlite3
import sys
import time

path, mode = sys.argv[1], sys.argv[2]
database = sqlite3.connect(path, isolation_level=None)
database.execute(f"pragma journal_mode={mode}")
database.execute("create table numbers(number integer primary key, text)")
number, longest = 0, 0.0
while not select.select([0], [], [], 0)[0]:
    number += 1
    began = time.monotonic()
    database.execute("insert into numbers values(?, ?)", (number, "x" * (number % 3000)))
    longest = max(longest, time.monotonic() - began)
found = database.execute("select count(*), min(number), max(number) from numbers").fetchone()
assert found == (number, 1, number), (found, number)
assert database.execute("pragma integrity_check").fetchone() == ("ok",)
database.close()
assert os.path.getsize(path) > 0
print(f"{number} transactions, the longest {longest:.3f} s")
