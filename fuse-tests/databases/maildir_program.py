"""Works in maildirs until its standard input ends.

Arguments: what (deliver, read, expunge), root, log, name, seed, pause in seconds. Folders below the root have `tmp`, `new` and
`cur`. The log says "d BASE" when a message was delivered, "e BASE" before it is expunged and "k BASE" where somebody else was
faster, so that it was kept. The content of a message is a function of its base name alone.
"""
import os
import random
import select
import sys

what, root, log, name, seed, pause = sys.argv[1:]
random = random.Random(seed)
told = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
folders = [os.path.join(root, folder) for folder in sorted(os.listdir(root))]


def say(word, base):
    os.write(told, f"{word} {base}\n".encode())


def body(base):
    return (base + "\n").encode() * (1 + sum(base.encode()) % 400)


def pick(folder, part):
    names = os.listdir(os.path.join(folder, part))
    return random.choice(names) if names else None


def deliver(number):
    folder = random.choice(folders)
    base = f"{number}.{name}.host"
    tmp, new = os.path.join(folder, "tmp", base), os.path.join(folder, "new", base)
    with open(tmp, "wb") as file:
        file.write(body(base))
        if random.random() < 0.3:
            file.flush()
            os.fsync(file.fileno())
    # Both are done by mail servers.
    if random.random() < 0.5:
        os.rename(tmp, new)
    else:
        os.link(tmp, new)
        os.unlink(tmp)
    say("d", base)


def read(_):
    folder = random.choice(folders)
    try:
        if random.random() < 0.7 and (seen := pick(folder, "new")):
            os.rename(os.path.join(folder, "new", seen), os.path.join(folder, "cur", seen + ":2,"))
        elif flagged := pick(folder, "cur"):
            base = flagged.split(":2,")[0]
            flags = "".join(sorted(random.sample("DFPRST", random.randrange(4))))
            os.rename(os.path.join(folder, "cur", flagged), os.path.join(folder, "cur", f"{base}:2,{flags}"))
    except FileNotFoundError:
        pass


def expunge(_):
    folder = random.choice(folders)
    if gone := pick(folder, "cur"):
        base = gone.split(":2,")[0]
        say("e", base)
        try:
            os.unlink(os.path.join(folder, "cur", gone))
        except FileNotFoundError:
            say("k", base)


print("ready", flush=True)
number = 0
while not select.select([0], [], [], float(pause))[0]:
    number += 1
    {"deliver": deliver, "read": read, "expunge": expunge}[what](number)
