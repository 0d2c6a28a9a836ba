//! `standin set`, as it is typed.

use std::path::PathBuf;

use clap::{ArgMatches, Args, FromArgMatches, Subcommand};

use super::deletes::DeletesAsked;
use crate::sets::Rule;

#[derive(Debug, Args)]
pub struct Set {
    #[command(subcommand)]
    pub command: SetCommand,
}

#[derive(Debug, Subcommand)]
pub enum SetCommand {
    /// Write the file of a set; `standin protect` of that name follows it
    Create {
        name: String,
        /// The directory that is protected under this name, for who reads the file
        #[arg(long, value_name = "DIR")]
        directory: Option<PathBuf>,
        #[command(flatten)]
        rules: RulesAsked,
        #[command(flatten)]
        deletes: DeletesAsked,
    },
    /// Show the rules of a set, or all sets that have a file
    Show { name: Option<String> },
    /// Change the rules of a set, also while it is protected: then the replicas are compared
    Change {
        name: String,
        /// Take all rules away first
        #[arg(long)]
        clear: bool,
        /// Take this rule away first, by its number in `set show`; may be repeated
        #[arg(long, value_name = "N", conflicts_with = "clear")]
        remove: Vec<usize>,
        #[command(flatten)]
        rules: RulesAsked,
        #[command(flatten)]
        deletes: DeletesAsked,
        /// What is deleted is deleted on the targets, too
        #[arg(long, conflicts_with_all = ["ignore_deletes", "keep_deleted"])]
        follow_deletes: bool,
    },
    /// Give the file of a set another name
    Rename { from: String, to: String },
    /// Make a set with the rules of another one
    Copy { from: String, to: String },
    /// Print the file of a set
    Export { name: String },
    /// Write the file of a set from another one; - is standard input
    Import { name: String, file: PathBuf },
    /// Take the file of a set away: then everything belongs to it. A set that no daemon serves is not missed any more
    /// (`standin status`) until one does
    Delete { name: String },
    /// Count what of a directory belongs to a set, and what does not
    Size {
        name: String,
        /// [default: the directory in the file of the set]
        directory: Option<PathBuf>,
    },
}

/// Rules in the order in which they were typed.
#[derive(Clone, Debug, Default)]
pub struct RulesAsked(pub Vec<Rule>);

/// What clap has to know of them.
#[derive(Debug, Args)]
struct RuleArgs {
    /// A pattern whose names belong to the set; may be repeated. The last rule that applies to a name decides;
    /// what none applies to belongs to the set, unless the first rule includes
    #[arg(long, value_name = "PATTERN")]
    include: Vec<String>,
    /// A pattern whose names do not belong to the set; may be repeated, also among --include
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// As --include, for files of the directory alone that the pattern matches
    #[arg(long, value_name = "PATTERN")]
    include_flat: Vec<String>,
    /// As --exclude, for files of the directory alone that the pattern matches
    #[arg(long, value_name = "PATTERN")]
    exclude_flat: Vec<String>,
}

impl FromArgMatches for RulesAsked {
    fn from_arg_matches(matches: &ArgMatches) -> Result<RulesAsked, clap::Error> {
        let mut found: Vec<(usize, Rule)> = Vec::new();
        let kinds = [
            ("include", true, true),
            ("exclude", false, true),
            ("include_flat", true, false),
            ("exclude_flat", false, false),
        ];
        for (id, includes, is_recursive) in kinds {
            let values = matches.get_many::<String>(id).unwrap_or_default();
            let places = matches.indices_of(id).unwrap_or_default();
            found.extend(
                places
                    .zip(values)
                    .map(|(at, pattern)| (at, Rule { includes, pattern: pattern.clone(), is_recursive })),
            );
        }
        found.sort_by_key(|(at, _)| *at);
        Ok(RulesAsked(found.into_iter().map(|(_, rule)| rule).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = RulesAsked::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for RulesAsked {
    fn augment_args(command: clap::Command) -> clap::Command {
        RuleArgs::augment_args(command)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        RuleArgs::augment_args_for_update(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        set: Set,
    }

    #[test]
    fn rules_stay_in_the_order_in_which_they_were_typed() {
        let typed = ["x", "create", "web", "--exclude", "a", "--include", "a/b", "--exclude-flat", "c"];
        let Only { set } = Only::try_parse_from(typed).unwrap();
        let SetCommand::Create { rules, .. } = set.command else { panic!("no creation") };
        let flat = Rule { is_recursive: false, ..Rule::exclude("c") };
        assert_eq!(rules.0, [Rule::exclude("a"), Rule::include("a/b"), flat]);
    }
}
