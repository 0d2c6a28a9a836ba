//! A report in the words of JUnit, which build servers and dashboards read: a suite of this drill, a case for each step,
//! and one for the verdict. (Format: the schema of the Jenkins xUnit plug-in, `junit-10.xsd`.)

use std::fmt::Write;

use super::plan::{Outcome, Step, Verdict};
use super::proof::CheckProof;
use super::report::{Report, StepReport};
use crate::commands::Ended;
use crate::words::shown;

/// What a case says beside its name; a failure is the data's, an error is the drill's.
enum Said {
    Well,
    Skipped(String),
    Failure(String),
    Error(String),
}

impl Report {
    /// As an XML document.
    pub fn junit(&self) -> String {
        let cases: Vec<(String, u64, Said, &str)> =
            self.steps.iter().map(case).chain(self.proofs()).chain([self.verdict_case()]).collect();
        let count = |is: fn(&Said) -> bool| cases.iter().filter(|(_, _, said, _)| is(said)).count();
        let (failures, errors) =
            (count(|said| matches!(said, Said::Failure(_))), count(|said| matches!(said, Said::Error(_))));
        let skipped = count(|said| matches!(said, Said::Skipped(_)));
        let all = self.ended_unix_ms.saturating_sub(self.started_unix_ms);
        let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
        let _ = writeln!(
            xml,
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\" \
             time=\"{}\" timestamp=\"{}\" hostname=\"{}\">",
            escaped(&format!("standin drill {} of {}", self.number, self.set)),
            cases.len(),
            seconds(all),
            timestamp(self.started_unix_ms),
            escaped(&self.host),
        );
        self.properties(&mut xml);
        let class = escaped(&format!("standin.drill.{}", self.set));
        for (name, length_ms, said, output) in &cases {
            let _ = writeln!(
                xml,
                "    <testcase classname=\"{class}\" name=\"{}\" time=\"{}\">",
                escaped(name),
                seconds(*length_ms)
            );
            said.write(&mut xml);
            if !output.is_empty() {
                let _ = writeln!(
                    xml,
                    "      <system-out>{}</system-out>",
                    escaped(output).replace("&#10;", "\n")
                );
            }
            xml.push_str("    </testcase>\n");
        }
        xml.push_str("  </testsuite>\n</testsuites>\n");
        xml
    }

    fn properties(&self, xml: &mut String) {
        let number = |value: Option<u64>| value.map(|value| value.to_string());
        let point = self.point.as_ref();
        xml.push_str("    <properties>\n");
        for (name, value) in [
            ("at", Some(self.at.clone())),
            ("by", Some(self.by.clone())),
            ("version", Some(self.version.clone())),
            ("packet", number(point.map(|point| point.packet))),
            ("age_ms", number(point.and_then(|point| point.age_ms))),
            ("usable_after_ms", number(self.usable_after_ms)),
            ("checked_after_ms", number(self.checked_after_ms)),
        ] {
            let Some(value) = value else { continue };
            let _ = writeln!(xml, "      <property name=\"{name}\" value=\"{}\"/>", escaped(&value));
        }
        xml.push_str("    </properties>\n");
    }

    /// Whether each check notices damage, where that was asked for.
    fn proofs(&self) -> Vec<(String, u64, Said, &str)> {
        self.proof.iter().flat_map(|proof| &proof.checks).map(CheckProof::case).collect()
    }

    /// Also a drill whose steps all ended well may have been interrupted, and one without checks says nothing.
    fn verdict_case(&self) -> (String, u64, Said, &str) {
        let said = match self.verdict {
            Some(Verdict::Passed) => Said::Well,
            Some(Verdict::Opened) => Said::Skipped("no check was given: nothing is said of the data".into()),
            Some(Verdict::Failed) if self.could_not => Said::Error("nothing was run on the data".into()),
            Some(Verdict::Failed) => Said::Failure("failed".into()),
            Some(Verdict::Interrupted) => Said::Error("interrupted".into()),
            None => Said::Error("it has not ended".into()),
        };
        ("verdict".into(), 0, said, "")
    }
}

impl CheckProof {
    fn case(&self) -> (String, u64, Said, &str) {
        let said = self.against().map_or(Said::Well, Said::Failure);
        let output = self.ended.as_ref().map_or("", |ended| ended.output.as_str());
        (format!("check {} on damaged data", self.check), 0, said, output)
    }
}

fn case(step: &StepReport) -> (String, u64, Said, &str) {
    let name = match (&step.name, &step.command) {
        (Some(name), _) => format!("{}: {name}", step.step),
        (None, Some(command)) => format!("{}: {command}", step.step),
        (None, None) => step.step.to_string(),
    };
    let output = step.ended.as_ref().map_or("", |ended| ended.output.as_str());
    (name, step.length_ms, said_of(step), output)
}

fn said_of(step: &StepReport) -> Said {
    let why = || {
        let ended = step.ended.as_ref().map(Ended::words).unwrap_or_default();
        let reason = step.reason.as_deref().unwrap_or_default();
        let why = format!("{} {reason}", ended.trim_start_matches(", "));
        match why.trim() {
            "" => "failed".to_owned(),
            why => why.to_owned(),
        }
    };
    match (step.outcome, step.step) {
        (Outcome::Done, _) => Said::Well,
        (Outcome::Interrupted, _) => Said::Error("interrupted".into()),
        (
            Outcome::Failed,
            Step::Clone | Step::Isolate | Step::Prove | Step::Before | Step::CleanUp | Step::After,
        ) => Said::Error(why()),
        (Outcome::Failed, Step::Start | Step::Ready | Step::Check(_) | Step::Open | Step::Stop) => {
            Said::Failure(why())
        }
    }
}

impl Said {
    fn write(&self, xml: &mut String) {
        let (element, message) = match self {
            Said::Well => return,
            Said::Skipped(message) => ("skipped", message),
            Said::Failure(message) => ("failure", message),
            Said::Error(message) => ("error", message),
        };
        let _ = writeln!(xml, "      <{element} message=\"{}\"/>", escaped(message));
    }
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

/// `YYYY-MM-DDThh:mm:ss`, of universal time.
fn timestamp(unix_ms: u64) -> String {
    let at = unix_ms / 1000;
    format!("{}:{:02}", shown(at as i64, &|_| 0).replace(' ', "T"), at % 60)
}

/// As text or as the value of an attribute; a letter that XML cannot have (XML 1.0, section 2.2) is shown as unknown.
fn escaped(text: &str) -> String {
    let mut all = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => all.push_str("&amp;"),
            '<' => all.push_str("&lt;"),
            '>' => all.push_str("&gt;"),
            '"' => all.push_str("&quot;"),
            '\t' | '\n' | '\r' => _ = write!(all, "&#{};", u32::from(letter)),
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => all.push('\u{fffd}'),
            letter => all.push(letter),
        }
    }
    all
}
