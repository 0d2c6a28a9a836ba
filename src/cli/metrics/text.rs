//! Metrics in the text format of Prometheus, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::fmt::Write;

use serde::Serialize;

/// Name and value.
pub(super) type Label = (&'static str, String);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Gauge,
    /// Only grows, but for a restart.
    Counter,
}

/// All samples of one name.
#[derive(Debug, Serialize)]
pub(super) struct Family {
    pub name: &'static str,
    #[serde(rename = "type")]
    pub kind: Kind,
    pub help: &'static str,
    pub samples: Vec<Sample>,
}

#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Sample {
    #[serde(serialize_with = "as_map")]
    pub labels: Vec<Label>,
    pub value: f64,
}

fn as_map<S: serde::Serializer>(labels: &[Label], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(labels.iter().map(|(name, value)| (name, value)))
}

/// What a scraper reads.
pub(super) fn exposition(families: &[Family]) -> String {
    let mut text = String::new();
    let _ = families.iter().try_for_each(|family| write_family(&mut text, family));
    text
}

fn write_family(text: &mut String, family: &Family) -> std::fmt::Result {
    let kind = match family.kind {
        Kind::Gauge => "gauge",
        Kind::Counter => "counter",
    };
    writeln!(text, "# HELP {} {}", family.name, family.help)?;
    writeln!(text, "# TYPE {} {kind}", family.name)?;
    for sample in &family.samples {
        write!(text, "{}{{", family.name)?;
        for (at, (name, value)) in sample.labels.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(text, "{comma}{name}=\"{}\"", escaped(value))?;
        }
        writeln!(text, "}} {}", sample.value)?;
    }
    Ok(())
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_written_as_the_format_says() {
        let sample =
            Sample { labels: vec![("set", "a\"b\\c\nd".into()), ("until", "applied".into())], value: 0.25 };
        let family = Family { name: "x_seconds", kind: Kind::Gauge, help: "Of x.", samples: vec![sample] };
        let expected = "# HELP x_seconds Of x.\n# TYPE x_seconds gauge\n\
                        x_seconds{set=\"a\\\"b\\\\c\\nd\",until=\"applied\"} 0.25\n";
        assert_eq!(exposition(&[family]), expected);
    }
}
