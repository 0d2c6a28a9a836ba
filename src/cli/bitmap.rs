//! `standin bitmap`: what is noted as changed.

use std::path::Path;

use serde_json::json;

use super::args::{Bitmap, BitmapCommand, Common};
use super::find::find_role;
use super::{Outcome, output};
use crate::control::{GenerationStatus, RoleName};
use crate::units;

pub(super) fn run(common: &Common, args: &Bitmap) -> Outcome {
    match &args.command {
        BitmapCommand::Show { set } => show(common, set.as_deref()),
    }
}

fn show(common: &Common, set: Option<&Path>) -> Outcome {
    let status = find_role(common, set, RoleName::Source)?.status;
    let map = status.source().map(|source| source.map.as_slice()).unwrap_or_default();
    match common.json {
        true => output::json(&json!({ "name": status.name, "generations": map })),
        false => output::text(&text(map)),
    }
    Ok(0)
}

fn text(map: &[GenerationStatus]) -> String {
    let mut text = String::from("id  since packet       size  populated  kind       place   active\n");
    for generation in map {
        let GenerationStatus { id, since, bytes, percent, is_coarse, active, kept, earlier } = generation;
        let since = since.map_or("(not known yet)".into(), |since| since.to_string());
        let full = if *is_coarse { "  full: everything" } else { "" };
        let active = if *active { "yes" } else { "no" };
        let size = units::size(*bytes);
        // Of the daemon that was killed, as of a node that was.
        let kind = if *earlier { "minimerge" } else { "minicopy" };
        let place = if *kept { "holder" } else { "memory" };
        text +=
            &format!("{id:<3} {since:<15} {size:>8}  {percent:>7.1} %  {kind:<9}  {place}  {active}{full}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Sequence;

    #[test]
    fn a_generation_is_a_line() {
        let generation = |id, since, active: bool| GenerationStatus {
            id,
            since,
            bytes: 8 << 20,
            percent: 12.34,
            is_coarse: !active,
            active,
            kept: active,
            earlier: !active,
        };
        let text = text(&[generation(1, Some(Sequence(7)), false), generation(2, None, true)]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[1].starts_with("1   7 ") && lines[1].ends_with("memory  no  full: everything"),
            "{text}"
        );
        assert!(lines[1].contains(" minimerge  memory  no"), "{text}");
        assert!(lines[2].contains("(not known yet)") && lines[2].contains("12.3 %"), "{text}");
        assert!(lines[2].contains(" minicopy   holder  yes"), "{text}");
    }
}
