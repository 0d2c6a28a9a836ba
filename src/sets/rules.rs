//! Ordered rules: which names of a protected directory belong to its set.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::{SET_PATTERN_LEN_MAX, SET_RULES_MAX};
use crate::packet::{Bounded, SetRule};
use crate::words::TypedRule;

/// One rule. The last one that applies to a name decides.
///
/// A pattern without `/` stands for names at any depth, one with `/` for paths from the protected directory on.
/// `*` and `?` do not reach over a `/`, `**` does; one `/` at the end means directories alone. A rule applies
/// to what its pattern matches and, unless it is not recursive, to all below; one that is not recursive
/// applies to the files of a directory that it matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RuleText", into = "RuleText")]
pub struct Rule {
    pub includes: bool,
    pub pattern: String,
    pub is_recursive: bool,
}

/// A rule as it stands in a file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    include: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exclude: Option<String>,
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    recursive: bool,
}

fn yes() -> bool {
    true
}

fn is_yes(value: &bool) -> bool {
    *value
}

impl TryFrom<RuleText> for Rule {
    type Error = &'static str;

    fn try_from(RuleText { include, exclude, recursive }: RuleText) -> Result<Rule, &'static str> {
        let (includes, pattern) = match (include, exclude) {
            (Some(pattern), None) => (true, pattern),
            (None, Some(pattern)) => (false, pattern),
            (Some(_), Some(_)) | (None, None) => return Err("a rule has either `include` or `exclude`"),
        };
        Ok(Rule { includes, pattern, is_recursive: recursive })
    }
}

impl From<Rule> for RuleText {
    fn from(Rule { includes, pattern, is_recursive }: Rule) -> RuleText {
        let (include, exclude) = if includes { (Some(pattern), None) } else { (None, Some(pattern)) };
        RuleText { include, exclude, recursive: is_recursive }
    }
}

impl Rule {
    pub fn include(pattern: &str) -> Rule {
        Rule { includes: true, pattern: pattern.to_owned(), is_recursive: true }
    }

    pub fn exclude(pattern: &str) -> Rule {
        Rule { includes: false, ..Rule::include(pattern) }
    }
}

impl From<&TypedRule> for Rule {
    fn from(TypedRule { includes, pattern, is_recursive }: &TypedRule) -> Rule {
        Rule { includes: *includes, pattern: pattern.clone(), is_recursive: *is_recursive }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.includes { "include" } else { "exclude" };
        let recursive = if self.is_recursive { "" } else { " (not recursive)" };
        write!(f, "{verb} {}{recursive}", self.pattern)
    }
}

/// Why a rule means nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRule {
    pub pattern: String,
    pub why: String,
}

impl fmt::Display for BadRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the pattern {:?}: {}", self.pattern, self.why)
    }
}

/// The rules of a set, in their order. What none applies to is in the set, unless the first rule includes: then
/// it is not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rules(pub Vec<Rule>);

impl Rules {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether below every directory of the set the same names belong to it: they exclude names at any depth, and
    /// nothing else. Where a directory of the set is moved to, the same of it is in the set then.
    pub fn are_alike_everywhere(&self) -> bool {
        let is_of_names = |rule: &Rule| {
            let name = rule.pattern.strip_suffix('/').unwrap_or(&rule.pattern);
            !rule.includes && rule.is_recursive && !name.contains('/') && name != "**"
        };
        self.0.iter().all(is_of_names)
    }

    /// As they travel.
    pub fn to_wire(&self) -> Vec<SetRule> {
        let one = |rule: &Rule| SetRule {
            includes: rule.includes,
            is_recursive: rule.is_recursive,
            pattern: Bounded(rule.pattern.clone().into_bytes()),
        };
        self.0.iter().map(one).collect()
    }

    /// Errors: what no source sends.
    pub fn from_wire(rules: &[SetRule]) -> Result<Rules, BadRule> {
        let one = |rule: &SetRule| match String::from_utf8(rule.pattern.0.clone()) {
            Ok(pattern) => Ok(Rule { includes: rule.includes, pattern, is_recursive: rule.is_recursive }),
            Err(error) => {
                let pattern = String::from_utf8_lossy(error.as_bytes()).into_owned();
                Err(BadRule { pattern, why: "it is no text".to_owned() })
            }
        };
        rules.iter().map(one).collect::<Result<Vec<Rule>, _>>().map(Rules)
    }

    /// Errors: more than a set may have.
    pub(super) fn check_count(&self) -> Result<(), BadRule> {
        let too_long = self.0.iter().find(|rule| rule.pattern.len() > SET_PATTERN_LEN_MAX);
        let (pattern, why) = match (self.0.get(SET_RULES_MAX), too_long) {
            (Some(rule), _) => (&rule.pattern, format!("a set has at most {SET_RULES_MAX} rules")),
            (None, Some(rule)) => (&rule.pattern, format!("it has more than {SET_PATTERN_LEN_MAX} bytes")),
            (None, None) => return Ok(()),
        };
        Err(BadRule { pattern: pattern.chars().take(80).collect(), why })
    }
}
