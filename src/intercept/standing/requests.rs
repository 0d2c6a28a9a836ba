//! What a request has come to, for whoever serves it again.

use super::{HAS_INTENT, Intent, REQUEST, RESENT, Standing};
use crate::intercept::volume::Volume;

/// A request whose intent is over when this is dropped, on the thread that has served it.
pub struct Answered<'a>(Option<(&'a Standing, u64)>);

impl Drop for Answered<'_> {
    fn drop(&mut self) {
        if let Some((standing, number)) = self.0
            && (HAS_INTENT.take() || number & RESENT != 0)
        {
            standing.intents.clear(&standing.head, number & !RESENT);
        }
    }
}

impl Volume {
    pub fn standing(&self) -> Option<&Standing> {
        self.objects.standing.as_deref()
    }

    /// A request that may change a name is answered now.
    pub fn answering(&self, number: u64) -> Answered<'_> {
        Answered(self.standing().map(|standing| (standing, number)))
    }

    /// This thread's request is about to make a change that cannot be made twice.
    pub(in crate::intercept) fn intend(&self, intent: Intent) {
        let number = REQUEST.get() & !RESENT;
        if let (Some(standing), true) = (self.standing(), number != 0) {
            standing.intents.note(&standing.head, number, intent);
            HAS_INTENT.set(true);
        }
    }

    /// What a daemon that is gone was about to do for this thread's request, if it had got so far.
    pub(in crate::intercept) fn intended_before(&self) -> Option<Intent> {
        let request = REQUEST.get();
        if request & RESENT == 0 {
            return None;
        }
        self.standing()?.intents.before(request & !RESENT)
    }

    /// The change that was intended was refused, and has changed nothing.
    pub(in crate::intercept) fn was_refused(&self) {
        drop(self.answering(REQUEST.get()));
    }
}
