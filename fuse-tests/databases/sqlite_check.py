"""Opens a database of sqlite_writer.py and prints the number of transactions K that it holds.

Arguments: database, seed. Ends with an error and a line that says what is wrong unless integrity_check passes
and the content is exactly that of the transactions 1 to K: nothing less, nothing more.
"""
import random
import sqlite3
import sys

SLOTS = 60

database, seed = sys.argv[1:]
db = sqlite3.connect(database, isolation_level=None)
verdict = [row[0] for row in db.execute("PRAGMA integrity_check")]
assert verdict == ["ok"], f"integrity_check: {verdict[:5]}"
(k, total), = db.execute("SELECT last, total FROM counter")
assert total == k * (k + 1) // 2, f"the sum of 1 to {k} is {total}"
numbers = [row[0] for row in db.execute("SELECT n FROM numbers ORDER BY n")]
assert numbers == list(range(1, k + 1)), f"of {k} rows {len(numbers)} are there, up to {numbers[-1:]}"


def body(n):
    numbers = random.Random(f"{seed} {n}")
    return numbers.randbytes(numbers.choice([10, 300, 3000, 9000, 30000]))


expected = {}
for n in range(max(1, k - 2 * SLOTS), k + 1):
    expected[n % SLOTS] = n
    if n % 7 == 0:
        expected.pop((n + 30) % SLOTS, None)
found = {}
for slot, n, content in db.execute("SELECT slot, n, body FROM payload"):
    assert content == body(n), f"the content of transaction {n} is another one"
    found[slot] = n
assert found == expected, f"payloads at {k}: {found} instead of {expected}"
print(k)
