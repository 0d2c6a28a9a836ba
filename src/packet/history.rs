//! The epochs of a history: who wrote since when, and in whose place. Two hosts that both raised the epoch have
//! two histories, whatever the numbers are.
//!
//! ```text
//!  a source's history            the history of the replica           the source is
//!  any                           of the first epoch                   taken in: nobody ever stood in
//!  has the replica's last epoch  any                                  taken in: it goes on from there
//!  any                           has the source's last epoch          stood in for
//!  any other                     any other                            one of two writers: a person decides
//! ```
//! An epoch that a person has overruled is in the history of the one that was kept. Of epochs long ago the name
//! alone is kept, and of those before nothing: what is not known to be in a history is not in it.

use bincode::de::Decoder;
use bincode::error::DecodeError;
use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::fence::KeptOut;
use super::position::{Epoch, Incarnation, Position, Sequence};
use crate::limits::{EPOCHS_KEPT_MAX, EPOCHS_NAMED_MAX};

/// An epoch that was raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Raised {
    pub epoch: Epoch,
    /// Milliseconds since 1970, by the clock of who raised it.
    pub since_ms: u64,
    /// What the data were as of: the last change of the history before.
    pub after: Position,
    pub how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// What was written in it is in this history.
    Written,
    /// It was another host's, and a person has kept this history.
    Overruled,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Serialize, Deserialize)]
pub struct History {
    /// Number of an epoch of which, and of those before, nothing is known here; every later one is named.
    base: u32,
    /// Before all of `raised`: that they were is all that is kept. By number; at most [`EPOCHS_NAMED_MAX`].
    #[serde(default)]
    named: Vec<Epoch>,
    /// By number; at most [`EPOCHS_KEPT_MAX`].
    raised: Vec<Raised>,
}

/// What a replica holds beyond the point from which a history goes on with its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beyond {
    /// All that it holds was there.
    Nothing,
    /// It has more of the same run of the source: it is further than the host that was stood in with.
    Further { after: Sequence },
    /// It is of a run of the source of which the host that was stood in with knows nothing.
    Unknown,
}

/// How a source and the replica that it comes to stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meeting {
    TakenIn,
    StoodInFor,
    TwoWriters,
}

impl Default for History {
    /// Nobody ever stood in.
    fn default() -> History {
        History { base: Epoch::FIRST, named: Vec::new(), raised: Vec::new() }
    }
}

impl History {
    /// All that is known is the last epoch.
    pub fn of(epoch: Epoch) -> History {
        if epoch.number <= Epoch::FIRST {
            return History::default();
        }
        let raised = Raised { epoch, since_ms: 0, after: Position::default(), how: How::Written };
        History { base: epoch.number - 1, named: Vec::new(), raised: vec![raised] }
    }

    /// What somebody says of an epoch that is known; no more than that where it does not belong to it.
    pub fn of_epoch(self, epoch: Epoch) -> History {
        if self.last() == Some(epoch) && self.is_whole() {
            return self;
        }
        if !self.is_whole() || !self.wrote(epoch) {
            return History::of(epoch);
        }
        // It was noted, and then not raised any further.
        let is_before = |raised: &Raised| raised.how == How::Written && raised.epoch.number <= epoch.number;
        History { raised: self.raised.into_iter().filter(is_before).collect(), ..self }
    }

    /// A peer may say anything.
    fn is_whole(&self) -> bool {
        self.base >= Epoch::FIRST
            && self.raised.iter().all(|raised| raised.epoch.number > self.base)
            && self.named.iter().all(|epoch| epoch.number > self.base)
            && self.named.is_sorted_by_key(|epoch| epoch.number)
            && (self.named.is_empty() || !self.raised.is_empty())
            && self.raised.is_sorted_by_key(|raised| raised.epoch.number)
            && self.raised.last().is_none_or(|last| last.how == How::Written)
    }

    /// The epoch that is written in; `None`: the first one, or one that nothing is known of.
    pub fn last(&self) -> Option<Epoch> {
        self.raised.iter().rev().find(|raised| raised.how == How::Written).map(|raised| raised.epoch)
    }

    pub fn raised(&self) -> &[Raised] {
        &self.raised
    }

    /// A person has kept it where another host wrote, too.
    pub fn is_kept(&self) -> bool {
        self.raised.iter().any(|raised| raised.how == How::Overruled)
    }

    fn has(&self, epoch: Epoch) -> bool {
        self.raised.iter().any(|raised| raised.epoch == epoch) || self.named.contains(&epoch)
    }

    fn wrote(&self, epoch: Epoch) -> bool {
        self.raised.iter().any(|raised| raised.epoch == epoch && raised.how == How::Written)
    }

    /// Goes on in an epoch above all.
    pub fn raise(&mut self, epoch: Epoch, since_ms: u64, after: Position) {
        assert!(
            self.raised.iter().all(|raised| raised.epoch.number < epoch.number),
            "{epoch:?} is above all"
        );
        self.raised.push(Raised { epoch, since_ms, after, how: How::Written });
        self.cut();
    }

    /// A person keeps this history, and what the other one has beyond it is given up. To be raised above both.
    pub fn overrule(&mut self, other: &History) {
        let beyond = other.raised.iter().filter(|raised| !self.has(raised.epoch)).copied();
        let beyond: Vec<Raised> = beyond.map(|raised| Raised { how: How::Overruled, ..raised }).collect();
        self.raised.extend(beyond);
        // Of one number the own one is last.
        self.raised.sort_by_key(|raised| (raised.epoch.number, raised.how == How::Written));
        self.cut();
    }

    fn cut(&mut self) {
        let over = self.raised.len().saturating_sub(EPOCHS_KEPT_MAX);
        self.named.extend(self.raised.drain(..over).map(|raised| raised.epoch));
        // What a person has overruled may be of long ago.
        self.named.sort_by_key(|epoch| epoch.number);
        let over = self.named.len().saturating_sub(EPOCHS_NAMED_MAX);
        if let Some(last) = over.checked_sub(1) {
            let base = self.named[last].number;
            self.base = base;
            self.named.retain(|epoch| epoch.number > base);
            self.raised.retain(|raised| raised.epoch.number > base);
        }
    }

    /// What a replica of this history that has applied this holds and the writer of the history does not: `runs` are
    /// those of the sources that it knows, the oldest first.
    pub fn beyond(&self, applied: &Position, runs: &[Incarnation]) -> Beyond {
        let is_nothing = *applied == Position::default() || self.last() == Some(applied.epoch);
        // Whoever writes in the epoch of the replica resumes by its positions.
        if is_nothing || self.last().is_none() {
            return Beyond::Nothing;
        }
        let goes_on = |raised: &&Raised| raised.how == How::Written && raised.after.epoch == applied.epoch;
        let Some(Raised { after, .. }) = self.raised.iter().find(goes_on) else {
            // Of an epoch long ago, or of one that a person has given up.
            return if self.was_decided(applied.epoch) { Beyond::Nothing } else { Beyond::Unknown };
        };
        if applied.same_history(after) {
            let is_further = applied.sequence > after.sequence;
            return if is_further { Beyond::Further { after: after.sequence } } else { Beyond::Nothing };
        }
        let number = |run: Incarnation| runs.iter().position(|&known| known == run);
        match (number(applied.incarnation), number(after.incarnation)) {
            (Some(theirs), Some(own)) if theirs < own => Beyond::Nothing,
            _ => Beyond::Unknown,
        }
    }

    fn was_decided(&self, epoch: Epoch) -> bool {
        self.raised.iter().any(|raised| raised.epoch == epoch && raised.how == How::Overruled)
    }

    /// How a source of this history stands to a replica of the other one.
    pub fn meets(&self, known: &History) -> Meeting {
        let Some(theirs) = known.last() else { return Meeting::TakenIn };
        match self.last() {
            _ if self.has(theirs) => Meeting::TakenIn,
            None => Meeting::StoodInFor,
            Some(own) if known.has(own) => Meeting::StoodInFor,
            Some(_) => Meeting::TwoWriters,
        }
    }

    /// Why a source of this history may not write a replica of the other one.
    pub fn kept_out_by(&self, known: &History) -> Option<KeptOut> {
        let (own, theirs) = (self.last().unwrap_or(Epoch { number: Epoch::FIRST, writer: 0 }), known.last()?);
        match self.meets(known) {
            Meeting::TakenIn => None,
            Meeting::StoodInFor => Some(KeptOut::StoodInFor { own, known: theirs }),
            Meeting::TwoWriters => Some(KeptOut::TwoWriters { own, known: theirs }),
        }
    }

    /// The epochs that one of the two has, and the other one has not: where they part.
    pub fn parted(&self, other: &History) -> (Vec<Raised>, Vec<Raised>) {
        let lacks = |one: &History, other: &History| {
            one.raised.iter().filter(|raised| !other.has(raised.epoch)).copied().collect()
        };
        (lacks(self, other), lacks(other, self))
    }
}

impl<Context> Decode<Context> for History {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let base = u32::decode(decoder)?;
        let named = at_most(decoder, EPOCHS_NAMED_MAX)?;
        let raised = at_most(decoder, EPOCHS_KEPT_MAX)?;
        Ok(History { base, named, raised })
    }
}

/// A list that is no longer than this.
fn at_most<D: Decoder, T: Decode<D::Context>>(decoder: &mut D, max: usize) -> Result<Vec<T>, DecodeError> {
    let count = u64::decode(decoder)?;
    if count > max as u64 {
        return Err(DecodeError::Other("more epochs than a history has"));
    }
    (0..count).map(|_| T::decode(decoder)).collect()
}
bincode::impl_borrow_decode!(History);

#[cfg(test)]
mod tests {
    use super::*;
    use Meeting::{StoodInFor, TakenIn, TwoWriters};

    const fn epoch(number: u32, writer: u64) -> Epoch {
        Epoch { number, writer }
    }

    /// Everything since the first epoch is known.
    fn whole(epochs: &[(u32, u64)]) -> History {
        let mut history = History::default();
        epochs.iter().for_each(|&(number, writer)| {
            history.raise(epoch(number, writer), u64::from(number), Position::default());
        });
        history
    }

    fn kept(mut own: History, other: &History, raised: (u32, u64)) -> History {
        own.overrule(other);
        own.raise(epoch(raised.0, raised.1), 9, Position::default());
        own
    }

    #[test]
    fn who_goes_on_from_what_is_there_is_taken_in_and_nobody_else() {
        let (one, other) = (whole(&[(2, 1)]), whole(&[(2, 7)]));
        let one_kept = kept(one.clone(), &other, (3, 1));
        let other_kept = kept(other.clone(), &one, (3, 7));
        let last = |number, writer| History::of(epoch(number, writer));
        for (what, own, known, expected) in [
            ("nobody ever stood in", whole(&[]), whole(&[]), TakenIn),
            ("a stand-in and its new target", one.clone(), whole(&[]), TakenIn),
            ("the old source comes back", whole(&[]), one.clone(), StoodInFor),
            ("the same", one.clone(), one.clone(), TakenIn),
            ("two stand-ins of two targets", one.clone(), other.clone(), TwoWriters),
            ("one of them has raised again", whole(&[(2, 1), (3, 1)]), other.clone(), TwoWriters),
            ("and the other comes to it", other.clone(), whole(&[(2, 1), (3, 1)]), TwoWriters),
            ("it went home", whole(&[(2, 1), (3, 5)]), one.clone(), TakenIn),
            ("the stand-in comes to who went home", one.clone(), whole(&[(2, 1), (3, 5)]), StoodInFor),
            ("raised past one that nothing came of", whole(&[(3, 5)]), one.clone(), TwoWriters),
            ("and from the other side", one.clone(), whole(&[(3, 5)]), TwoWriters),
            ("the one that is kept", one_kept.clone(), other.clone(), TakenIn),
            ("the one that is given up", other.clone(), one_kept.clone(), StoodInFor),
            ("where the one that is kept was", one.clone(), one_kept.clone(), StoodInFor),
            ("two persons keep both", one_kept.clone(), other_kept.clone(), TwoWriters),
            ("and from the other side", other_kept.clone(), one_kept.clone(), TwoWriters),
            ("what led to it is not known: it may be anything", last(3, 5), one.clone(), TwoWriters),
            ("nor what led to a replica", one.clone(), last(5, 5), TwoWriters),
            ("of one number it is known all the same", last(2, 5), one.clone(), TwoWriters),
            ("of nothing", whole(&[]), last(2, 5), StoodInFor),
        ] {
            assert_eq!(own.meets(&known), expected, "{what}");
            let says = own.kept_out_by(&known);
            assert_eq!(says.is_some(), expected != TakenIn, "{what}");
            assert_eq!(matches!(says, Some(KeptOut::TwoWriters { .. })), expected == TwoWriters, "{what}");
        }
    }

    /// Whatever two hosts have done, neither goes over what it does not have.
    #[test]
    fn nobody_goes_over_what_it_does_not_have() {
        let replayed = std::env::var("STANDIN_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = replayed.unwrap_or_else(crate::store::random_u64);
        let mut random = crate::random::Random::new(seed);
        for round in 0..2000 {
            let mut hosts: Vec<History> = vec![History::default(); 3];
            for step in 0..random.below(12) {
                let (at, from) = (random.below(3) as usize, random.below(3) as usize);
                let highest = hosts.iter().filter_map(History::last).map(|epoch| epoch.number).max();
                let own = hosts[at].last().map_or(Epoch::FIRST, |epoch| epoch.number);
                match random.below(3) {
                    // Raised by what it knows, or has heard of.
                    0 => {
                        let above = if random.below(2) == 0 { own } else { highest.unwrap_or(own) };
                        let raised = epoch(above.max(own) + 1, round * 100 + step);
                        if hosts[at].raised.iter().all(|known| known.epoch.number < raised.number) {
                            hosts[at].raise(raised, 0, Position::default());
                        }
                    }
                    // The one is copied to from the other.
                    1 => {
                        let (source, replica) = (hosts[from].clone(), hosts[at].clone());
                        if source.meets(&replica) == TakenIn {
                            let lost = replica.last();
                            let has = lost.is_none_or(|lost| source.has(lost));
                            assert!(
                                has,
                                "STANDIN_SEED={seed}, round {round}: {source:?} goes over {replica:?}"
                            );
                            hosts[at] = source;
                        }
                    }
                    _ => {
                        let whole = hosts[at].clone();
                        assert!(whole.is_whole(), "STANDIN_SEED={seed}: {whole:?}");
                        let lost = whole.meets(&hosts[from]);
                        let back = hosts[from].meets(&whole);
                        assert_eq!(
                            lost == TwoWriters,
                            back == TwoWriters,
                            "STANDIN_SEED={seed}, round {round}: {whole:?} and {:?}",
                            hosts[from]
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn what_a_peer_says_of_itself_is_no_more_than_its_epoch_where_it_is_wrong() {
        let history = whole(&[(2, 1), (3, 2)]);
        assert_eq!(history.clone().of_epoch(epoch(3, 2)), history);
        assert_eq!(history.clone().of_epoch(epoch(4, 2)), History::of(epoch(4, 2)));
        // Noted, and killed before it was raised.
        assert_eq!(history.clone().of_epoch(epoch(2, 1)), whole(&[(2, 1)]));
        let turned =
            History { base: 0, raised: history.raised.iter().rev().copied().collect(), ..history.clone() };
        assert_eq!(turned.of_epoch(epoch(2, 1)), History::of(epoch(2, 1)));
        assert_eq!(whole(&[(2, 1)]).of_epoch(epoch(1, 7)), History::default());
    }

    /// An older split brain was not found, and was overwritten, once 32 epochs had been raised.
    #[test]
    fn a_long_history_knows_its_first_epochs() {
        let (all, here) = (EPOCHS_NAMED_MAX + EPOCHS_KEPT_MAX, 7);
        let raised_to =
            |count: usize| whole(&(2..2 + count as u32).map(|number| (number, here)).collect::<Vec<_>>());
        let known = |number| History::of(epoch(number, here));
        for count in [EPOCHS_KEPT_MAX + 1, 100, all] {
            let history = raised_to(count);
            assert!(history.is_whole() && history.raised.len() == EPOCHS_KEPT_MAX, "{count}");
            assert_eq!(history.meets(&whole(&[(2, here)])), TakenIn, "{count}");
            assert_eq!(whole(&[(2, here)]).meets(&history), StoodInFor, "{count}");
            assert_eq!(history.meets(&whole(&[(2, 5)])), TwoWriters, "{count}");
            assert_eq!(whole(&[(2, 5)]).meets(&history), TwoWriters, "{count}");
            assert_eq!(whole(&[]).meets(&history), StoodInFor, "{count}");
        }
        // Beyond what is named nothing is proved: a person is asked.
        let history = raised_to(all + 5);
        assert!(history.is_whole());
        assert_eq!((history.named.len(), history.base), (EPOCHS_NAMED_MAX, 6));
        assert_eq!((history.meets(&known(6)), history.meets(&known(7))), (TwoWriters, TakenIn));
        let sent = crate::packet::encode_message(&history);
        assert!(sent.len() < crate::limits::CONTROL_LEN_MAX / 2, "{} bytes", sent.len());
        assert_eq!(crate::packet::decode_message::<History>(&sent[4..]), Ok(history));
        // As a version before has kept it.
        let cut = format!(
            r#"{{"base":50,"raised":{}}}"#,
            serde_json::to_string(&whole(&[(51, 7)]).raised).unwrap()
        );
        let cut: History = serde_json::from_str(&cut).unwrap();
        assert_eq!((cut.meets(&whole(&[(2, 7)])), cut.meets(&known(51))), (TwoWriters, TakenIn));
    }

    /// A second target that was further than the one that stood in was overwritten without a word.
    #[test]
    fn what_a_second_target_has_beyond_a_stand_in_is_known() {
        use Beyond::{Further, Nothing, Unknown};
        let first = epoch(1, 3);
        let at = |run, sequence| Position {
            sequence: Sequence(sequence),
            ..Position::origin(first, Incarnation(run))
        };
        let mut history = History::default();
        history.raise(epoch(2, 9), 1, at(20, 100));
        let runs = [10, 20, 30].map(Incarnation);
        let second = Position::origin(epoch(2, 9), Incarnation(40));
        let further = Further { after: Sequence(100) };
        for (what, applied, runs, beyond) in [
            ("as far", at(20, 100), &runs[..], Nothing),
            ("behind", at(20, 99), &runs, Nothing),
            ("further", at(20, 101), &runs, further),
            ("further, and nothing is known of runs", at(20, 101), &[], further),
            ("of an earlier run", at(10, 5000), &runs, Nothing),
            ("of a later run", at(30, 1), &runs, Unknown),
            ("of a run that nobody knows", at(50, 1), &runs, Unknown),
            ("nothing is known of runs", at(10, 1), &[], Unknown),
            ("the own run is not among them", at(10, 1), &runs[..1], Unknown),
            ("it follows the stand-in already", second, &[], Nothing),
            ("nothing was ever copied there", Position::default(), &[], Nothing),
            (
                "another source of the first epoch",
                Position { epoch: epoch(1, 4), ..at(20, 1) },
                &runs,
                Unknown,
            ),
        ] {
            assert_eq!(history.beyond(&applied, runs), beyond, "{what}");
        }
        assert_eq!(History::default().beyond(&at(20, 101), &[]), Nothing, "nobody stood in");
        // Later on, of the first one that went on from it.
        history.raise(epoch(3, 11), 1, Position { sequence: Sequence(7), ..second });
        assert_eq!(history.beyond(&at(20, 101), &runs), further);
        assert_eq!(
            history.beyond(&Position { sequence: Sequence(8), ..second }, &runs),
            Further { after: Sequence(7) }
        );
        // A person has given it up.
        let kept = kept(whole(&[(2, 1)]), &whole(&[(2, 7)]), (3, 1));
        assert_eq!(kept.beyond(&Position::origin(epoch(2, 7), Incarnation(1)), &[]), Nothing);
    }
}
