//! What is said of a copy before its first listing.

use std::sync::Arc;

use super::super::Entry;
use super::BlockOrder;
use crate::packet::{Keeping, LaneItem};
use crate::sets::Matcher;

/// What a name that the target has says of what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Names {
    /// Nothing: content under it is sent.
    #[default]
    Any,
    /// Together with size and mtime, that it is the same.
    Match,
}

/// What is said of a copy before its first listing.
#[derive(Clone, Default)]
pub(super) struct Preamble {
    pub is_afresh: bool,
    pub names: Names,
    /// [`LaneItem::OrphanRules`], where there are any.
    pub orphans: Option<LaneItem>,
    /// Whether the target keeps what was removed.
    pub keeping: Option<Keeping>,
    pub by_blocks: Option<BlockOrder>,
    /// The rules of the set, where it has some.
    pub rules: Option<Arc<Matcher>>,
    /// [`LaneItem::BeginOwed`], of a copy that shows only what is owed.
    pub owed: Option<LaneItem>,
    pub calls: Vec<LaneItem>,
}

/// The items that begin a copy.
pub(super) fn first_items(preamble: Preamble, root: LaneItem) -> Vec<Entry> {
    let Preamble { is_afresh, names, orphans, keeping, by_blocks, rules, owed, calls } = preamble;
    let afresh = is_afresh.then_some(LaneItem::Afresh);
    let names_match = (names == Names::Match).then_some(LaneItem::NamesMatch);
    let by_blocks = by_blocks.map(|BlockOrder { hash, least, .. }| LaneItem::ByBlocks { hash, least });
    let of_set = rules.as_deref().map(rules_item);
    let kept = keeping.map(|keeping| LaneItem::Keeping { keeping });
    let orphans = orphans.into_iter().chain(kept);
    let rules = names_match.into_iter().chain(calls).chain(orphans).chain(by_blocks).chain(of_set);
    [owed.unwrap_or(LaneItem::Begin)]
        .into_iter()
        .chain(afresh)
        .chain([root])
        .chain(rules)
        .map(Entry::of)
        .collect()
}

pub(super) fn rules_item(matcher: &Matcher) -> LaneItem {
    LaneItem::Rules { rules: matcher.rules().to_wire() }
}
