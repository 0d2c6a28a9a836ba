//! Who goes on: one thread at a time, by the seed.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::intercept::change::turns::Turns;
use crate::random::Random;

/// At a place where another thread may go on, once in so many times one does.
const SWITCH: u64 = 5;
/// So many times in a row no thread got its lock: none will.
const DEADLOCK: u32 = 1000;

/// The order of all threads.
pub struct Order {
    state: Mutex<State>,
    turned: Vec<Condvar>,
}

struct State {
    random: Random,
    /// Whose turn it is.
    at: usize,
    present: Vec<usize>,
    blocked: u32,
}

impl Order {
    pub fn new(threads: usize, random: Random) -> Order {
        let state = State { random, at: 0, present: (0..threads).collect(), blocked: 0 };
        Order { state: Mutex::new(state), turned: (0..threads).map(|_| Condvar::new()).collect() }
    }
}

/// One thread's place in it, while it lives.
pub struct Place {
    order: Arc<Order>,
    number: usize,
}

impl Place {
    /// Returns when it is this thread's turn.
    pub fn enter(order: Arc<Order>, number: usize) -> Place {
        let place = Place { order, number };
        place.wait(place.order.state.lock());
        place
    }

    fn wait(&self, mut state: parking_lot::MutexGuard<'_, State>) {
        while state.at != self.number {
            self.order.turned[self.number].wait(&mut state);
        }
    }

    fn give_to(&self, state: &mut State, next: usize) {
        state.at = next;
        self.order.turned[next].notify_one();
    }
}

impl Turns for Place {
    fn turn(&self) {
        let mut state = self.order.state.lock();
        state.blocked = 0;
        if state.random.below(SWITCH) > 0 {
            return;
        }
        let count = state.present.len() as u64;
        let next = state.random.below(count) as usize;
        let next = state.present[next];
        self.give_to(&mut state, next);
        self.wait(state);
    }

    fn blocked(&self) {
        let mut state = self.order.state.lock();
        state.blocked += 1;
        assert!(state.blocked < DEADLOCK, "no thread gets its lock");
        let others: Vec<usize> =
            state.present.iter().copied().filter(|number| *number != self.number).collect();
        assert!(!others.is_empty(), "a lock is held by nobody");
        let next = others[state.random.below(others.len() as u64) as usize];
        self.give_to(&mut state, next);
        self.wait(state);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.order.state.lock();
        state.present.retain(|number| *number != self.number);
        state.blocked = 0;
        if let Some(next) = state.present.first().copied() {
            self.give_to(&mut state, next);
        }
    }
}
