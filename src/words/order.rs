//! Settings of one connection: where they come from, and what a person wants of one while it runs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a person wants of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order<T> {
    /// This, over restarts, whatever was typed or stands in the file of the set.
    Set(T),
    /// What was typed or stands in the file, as if nobody had said anything.
    Clear,
    On,
    /// It is kept, and does not count.
    Off,
}

/// Who set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// While it ran.
    Command,
    /// With the start.
    Option,
    /// The file of the set.
    File,
}

/// What people have said of a setting while it ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own<T> {
    #[serde(default = "Option::default")]
    pub value: Option<T>,
    #[serde(default)]
    pub is_off: bool,
}

impl<T> Default for Own<T> {
    fn default() -> Own<T> {
        Own { value: None, is_off: false }
    }
}

impl<T: Clone> Own<T> {
    pub fn follow(&mut self, order: Order<T>) {
        match order {
            Order::Set(value) => *self = Own { value: Some(value), is_off: false },
            Order::Clear => *self = Own::default(),
            Order::On => self.is_off = false,
            Order::Off => self.is_off = true,
        }
    }

    /// What is set, and by whom.
    pub fn or(&self, told: &Option<(T, Origin)>) -> Option<(T, Origin)> {
        self.value.clone().map(|value| (value, Origin::Command)).or_else(|| told.clone())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::Command => "set by hand",
            Origin::Option => "as the protection was started",
            Origin::File => "from the file of the set",
        })
    }
}
