//! How short it makes what it sends: brings the level that holds to its links.

use super::super::Compressing;
use super::super::surroundings::Surroundings;
use super::Driver;
use crate::words::{Compression, Order, Origin, Own, Target};

/// What people have said of its compression while it ran, and what came of it.
pub(super) struct Level {
    pub(super) own: Own<Compression>,
    holds: Compression,
    /// Whether the target that was welcomed last takes what is compressed.
    pub(super) is_taken: Option<bool>,
    /// It is told large holes as such.
    pub(super) takes_holes: bool,
}

impl Level {
    pub(super) fn new(own: Own<Compression>) -> Level {
        Level { own, holds: Compression::Off, is_taken: None, takes_holes: false }
    }
}

impl<S: Surroundings> Driver<S> {
    pub(super) fn tick_compression(&mut self) {
        let told = self.compression_told().filter(|_| !self.level.own.is_off);
        let level = told.map_or(Compression::Off, |(level, _)| level);
        if level != self.level.holds {
            self.level.holds = level;
            self.unpublished = true;
            self.around.compress(level);
        }
    }

    /// What everyone may know of it.
    pub(in crate::source_side::connection) fn compressing(&self) -> Option<Compressing> {
        let (level, origin) = self.compression_told()?;
        let (is_on, is_taken) = (!self.level.own.is_off, self.level.is_taken);
        Some(Compressing { level, origin, is_on, is_taken, saved: self.around.saved() })
    }

    pub(in crate::source_side::connection) fn compression_own(&self) -> Own<Compression> {
        self.level.own.clone()
    }

    pub(super) fn order_compression(&mut self, order: Order<Compression>) {
        self.level.own.follow(order);
        self.tick_compression();
    }

    /// There is no network to a target in this process.
    fn compression_told(&self) -> Option<(Compression, Origin)> {
        match self.settings.target {
            Target::Remote { .. } => self.level.own.or(&self.settings.terms.compression),
            Target::Local(_) | Target::Null => None,
        }
    }
}
