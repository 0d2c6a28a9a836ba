//! What one user may take of something that all share and that is used up.

use std::collections::HashMap;

use parking_lot::Mutex;

/// So many of something. Root may take all; every other user a quarter, and all of them together
/// three quarters: one user, or three, never keep the others out.
pub struct Shares {
    max: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by: HashMap<u32, usize>,
}

impl Shares {
    pub fn new(max: usize) -> Shares {
        Shares { max, taken: Mutex::default() }
    }

    /// Whether the user may take one more; it is taken then.
    pub fn take(&self, uid: u32) -> bool {
        let mut taken = self.taken.lock();
        if !self.fits(&taken, uid) {
            return false;
        }
        taken.all += 1;
        *taken.by.entry(uid).or_default() += 1;
        true
    }

    fn fits(&self, taken: &Taken, uid: u32) -> bool {
        let by = taken.by.get(&uid).copied().unwrap_or(0);
        match uid {
            0 => taken.all < self.max,
            _ => by < self.max / 4 && taken.all < self.max / 4 * 3,
        }
    }

    /// Gives one back that the user has taken.
    pub fn give(&self, uid: u32) {
        let mut taken = self.taken.lock();
        let Some(by) = taken.by.get_mut(&uid) else { panic!("user {uid} gives back what he has not taken") };
        assert!(*by > 0, "user {uid} gives back more than he has taken");
        *by -= 1;
        if *by == 0 {
            taken.by.remove(&uid);
        }
        taken.all -= 1;
        assert!(taken.all > 0 || taken.by.is_empty(), "shares are lost");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_everything() {
        let shares = Shares::new(100);
        let take_all = |uid| (0..200).filter(|_| shares.take(uid)).count();
        assert_eq!([1, 2, 3, 4].map(take_all), [25, 25, 25, 0], "others than root leave a quarter");
        assert_eq!(take_all(0), 25);
        (0..25).for_each(|_| shares.give(1));
        assert_eq!(take_all(4), 0);
        (0..25).for_each(|_| shares.give(0));
        assert_eq!(take_all(4), 25);
    }
}
