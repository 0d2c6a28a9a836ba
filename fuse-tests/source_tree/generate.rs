//! A tree of the shape of a kernel's: 15 files a directory, six levels deep, half of the files under
//! 5 KiB and a few of megabytes, some symlinks, text that compresses as text does.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use standin::random::Random;

/// Files a directory.
const EACH: u64 = 15;
/// One symlink for so many files.
const SYMLINK_EVERY: u64 = 1000;

const WORDS: [&str; 24] = [
    "static",
    "int",
    "return",
    "struct",
    "device",
    "unsigned",
    "long",
    "if",
    "else",
    "register",
    "write",
    "read",
    "\n",
    "\n\t",
    "();\n",
    "{\n",
    "}\n",
    "->",
    "lock",
    "page",
    "buffer",
    "0x1f",
    "/* why */",
    "spin",
];

/// Makes `files` files below `root`.
pub fn tree(root: &Path, files: u64, random: &mut Random) {
    let text = text(random);
    let mut dirs = vec![root.to_owned()];
    fs::create_dir(root).expect("a directory");
    for number in 0..files {
        if number % EACH == 0 {
            dirs.push(new_dir(root, &dirs, number, random));
        }
        let dir = dirs.last().expect("the root at least");
        let name = format!("{}-{number}.{}", WORDS[random.below(11) as usize], kind(random));
        let start = random.below(text.len() as u64 / 2) as usize;
        let path = dir.join(name);
        fs::write(&path, &text[start..start + len(random).min(text.len() / 2)]).expect("a file");
        if random.below(40) == 0 {
            fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("our own file");
        }
        if number % SYMLINK_EVERY == 0 {
            symlink(format!("../linked-{number}"), dir.join(format!("link-{number}"))).expect("a symlink");
        }
    }
}

/// Below a directory that is there, at most six levels deep.
fn new_dir(root: &Path, dirs: &[PathBuf], number: u64, random: &mut Random) -> PathBuf {
    let parent = &dirs[random.below(dirs.len() as u64) as usize];
    let depth = parent.strip_prefix(root).expect("below the root").components().count();
    let dir = if depth < 6 { parent } else { root }.join(format!("dir-{number}"));
    fs::create_dir(&dir).expect("a directory");
    dir
}

fn kind(random: &mut Random) -> &'static str {
    match random.below(20) {
        0..9 => "c",
        9..17 => "h",
        17 => "S",
        18 => "rst",
        _ => "yaml",
    }
}

/// Bytes of a file: half are under 5 KiB, the mean is about 16 KiB, one of 2,000 has megabytes.
fn len(random: &mut Random) -> usize {
    let len = match random.below(2000) {
        0 => 1 << 20..9 << 20,
        1..30 => 64 << 10..400 << 10,
        30..400 => 16 << 10..48 << 10,
        400..1000 => 5 << 10..16 << 10,
        _ => 0..5 << 10,
    };
    (len.start + random.below(len.end - len.start)) as usize
}

/// 20 MiB to cut files from.
fn text(random: &mut Random) -> Vec<u8> {
    let mut text = String::with_capacity(20 << 20);
    while text.len() < 20 << 20 {
        text.push_str(random.one_of::<&str>(&WORDS));
        text.push(' ');
        if random.below(9) == 0 {
            write!(text, "{:x}", random.number()).expect("a string takes all");
        }
    }
    text.into_bytes()
}

/// Makes sources that a compiler understands, with one header for all, in a new directory.
pub fn sources(dir: &Path, count: usize) -> Vec<PathBuf> {
    fs::create_dir(dir).expect("a directory");
    fs::write(dir.join("all.h"), "#include <stddef.h>\nstruct item { long key; struct item *next; };\n")
        .expect("a file");
    let make = |number: usize| {
        let path = dir.join(format!("source{number}.c"));
        fs::write(&path, source(number)).expect("a file");
        path
    };
    (0..count).map(make).collect()
}

fn source(number: usize) -> String {
    let mut source = String::from("#include \"all.h\"\n");
    for function in 0..8 {
        write!(
            source,
            "long f{number}_{function}(struct item *i, long n) {{\n\tlong sum = {function};\n\
             \tfor (; i != NULL; i = i->next)\n\t\tsum += i->key * n ^ {number};\n\treturn sum;\n}}\n"
        )
        .expect("a string takes all");
    }
    source
}
