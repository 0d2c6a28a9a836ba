//! A compilation: small C files that share a header, one after the other.

use std::fmt::Write;
use std::fs;
use std::process::Command;
use std::time::Instant;

use super::super::error::{Context, Error, Result};
use super::programs::run;
use super::{Done, Load};

/// The directory.
const DIR: &str = "compiled";

const FILES: u64 = 8;

/// Functions of each file; each has a declaration in the header of all.
const FUNCTIONS: u64 = 40;

impl Load<'_> {
    pub(super) fn prepare_compile(&self) -> Result<()> {
        self.remove(DIR)?;
        let dir = self.path(DIR);
        fs::create_dir(&dir).at(&dir)?;
        fs::write(dir.join("all.h"), header()).at(&dir)?;
        (0..FILES).try_for_each(|file| fs::write(dir.join(format!("{file}.c")), source(file)).at(&dir))
    }

    pub(super) fn compile(&self) -> Result<Done> {
        let dir = self.path(DIR);
        let started = Instant::now();
        for file in 0..FILES {
            let (from, to) = (dir.join(format!("{file}.c")), dir.join(format!("{file}.o")));
            run(Command::new("cc").args(["-O1", "-c", "-o"]).arg(to).arg(from))?;
        }
        Ok(Done::elsewhere(FILES, started.elapsed()))
    }

    pub(super) fn check_compiled(&self) -> Result<()> {
        for dir in self.place.arrivals(DIR) {
            for file in 0..FILES {
                let path = dir.join(format!("{file}.o"));
                if !fs::read(&path).at(&path)?.starts_with(b"\x7fELF") {
                    return Err(Error::Wrong(format!("{} is no object file", path.display())));
                }
            }
        }
        Ok(())
    }
}

fn header() -> String {
    let mut text = String::from("#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n");
    for (file, function) in (0..FILES).flat_map(|file| (0..FUNCTIONS).map(move |at| (file, at))) {
        let _ = writeln!(text, "int f_{file}_{function}(const char *text, int count);");
    }
    text
}

fn source(file: u64) -> String {
    let mut text = String::from("#include \"all.h\"\n");
    for function in 0..FUNCTIONS {
        let _ = writeln!(
            text,
            "int f_{file}_{function}(const char *text, int count) {{\n  int sum = {function};\n  \
             for (int i = 0; i < count; i++) sum = sum * 31 + text[i];\n  \
             if (sum == {file}) printf(\"%d\\n\", sum);\n  return sum + (int)strlen(text);\n}}"
        );
    }
    text
}
