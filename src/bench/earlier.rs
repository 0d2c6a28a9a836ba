//! A run that was kept as JSON (`standin bench --json > FILE`), to compare with.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::against::{Against, with_earlier};
use super::line::Line;
use super::report::{Report, Sample};
use super::variant::Variant;
use crate::failure::Failure;

/// The format of JSON documents that is understood.
const FORMAT: u32 = 1;

/// What is read of it: fields that are not known are left alone, as `docs/bench-json.md` says.
#[derive(Debug, Deserialize)]
pub struct Earlier {
    format: u32,
    version: String,
    machine: Machine,
    sizes: Sizes,
    lines: Vec<EarlierLine>,
    #[serde(skip)]
    file: String,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Machine {
    file_system: String,
    kernel: String,
    cpus: usize,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Sizes {
    size_bytes: u64,
    files: u64,
}

#[derive(Debug, Deserialize)]
struct EarlierLine {
    line: String,
    variants: Vec<EarlierVariant>,
}

#[derive(Debug, Deserialize)]
struct EarlierVariant {
    variant: String,
    samples: Vec<Sample>,
}

impl Earlier {
    /// Errors: it cannot be read, or is no such run.
    pub fn read(path: &Path) -> Result<Earlier, Failure> {
        let text = fs::read_to_string(path).map_err(|error| refused(path, &error.to_string()))?;
        let mut earlier = Earlier::parse(&text).map_err(|why| refused(path, &why))?;
        earlier.file = path.display().to_string();
        Ok(earlier)
    }

    fn parse(text: &str) -> Result<Earlier, String> {
        let earlier: Earlier = serde_json::from_str(text).map_err(|error| error.to_string())?;
        match earlier.format {
            FORMAT => Ok(earlier),
            other => Err(format!("its format is {other}; this program knows {FORMAT}")),
        }
    }

    /// The lines of a run beside these.
    pub fn compare(&self, report: &Report) -> Against {
        let other = format!("the run in {} (standin {})", self.file, self.version);
        let mut against = with_earlier(other, &report.lines, |line, variant| self.samples(line, variant));
        against.notes.push("the two runs were not interleaved: --against is surer than --compare".into());
        let machine = Machine {
            file_system: report.machine.file_system.clone(),
            kernel: report.machine.kernel.clone(),
            cpus: report.machine.cpus,
        };
        if machine != self.machine {
            against.notes.push("the kept run was made on another machine, kernel or file system".into());
        }
        let sizes = Sizes { size_bytes: report.sizes.size_bytes, files: report.sizes.files };
        if sizes != self.sizes {
            against.notes.push("the kept run has other sizes (--size, --files)".into());
        }
        against
    }

    fn samples(&self, line: Line, variant: Variant) -> Option<Vec<Sample>> {
        let line = line.to_string();
        let line = self.lines.iter().find(|earlier| earlier.line == line)?;
        let word = serde_json::to_value(variant).ok()?;
        let found = line.variants.iter().find(|earlier| word == earlier.variant.as_str())?;
        Some(found.samples.clone())
    }
}

fn refused(path: &Path, why: &str) -> Failure {
    Failure::new(
        format!("{} is no run to compare with: {why}.", path.display()),
        "Nothing was measured.",
        "Keep one with `standin bench --json DIR > FILE`.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(format: u32) -> String {
        let sample = r#"{"work":100,"seconds":2.0,"daemon_cpu_seconds":0.5,"of_later":1}"#;
        format!(
            r#"{{"format":{format},"version":"1","later":[],
            "machine":{{"file_system":"ext4","kernel":"6.1","cpus":2,"load_before":0.0}},
            "sizes":{{"size_bytes":1048576,"files":2,"rounds":1}},
            "lines":[{{"line":"unlink","title":"t","unit":"ops/s","variants":[
                {{"variant":"null","rate":null,"samples":[{sample}]}}]}}]}}"#
        )
    }

    #[test]
    fn a_kept_run_is_read_with_what_is_not_known_in_it() {
        let earlier = Earlier::parse(&kept(1)).unwrap();
        let samples = earlier.samples(Line::Unlink, Variant::Null).unwrap();
        assert_eq!((samples[0].work, samples[0].daemon_cpu_seconds), (100, 0.5));
        assert!(earlier.samples(Line::Unlink, Variant::Native).is_none());
        assert!(earlier.samples(Line::Create, Variant::Null).is_none());
    }

    #[test]
    fn another_format_is_refused() {
        assert!(Earlier::parse(&kept(2)).unwrap_err().contains("format is 2"));
        assert!(Earlier::parse("{}").is_err());
        assert!(Earlier::read(Path::new("/nonexistent/run.json")).is_err());
    }
}
