//! Directories leave the set and come back, with all that is below them: what happens out there nobody tells.

use std::collections::BTreeSet;

use super::super::*;
use super::origin::{NAMES, OBJECTS_MAX, Object, Origin, ROOT, id};
use super::owed::outages;
use super::{Planted, World, is_missed, planted, run_in, seeds};
use crate::packet::LINKS_UNKNOWN;
use crate::random::Random;

/// What is out of the set.
#[derive(Debug, Default)]
pub struct DirectoriesOut {
    /// Those that are in no directory.
    tops: BTreeSet<u64>,
    /// A copy brings what comes.
    may_arrive: bool,
    pub left: u64,
    pub came: u64,
    pub untold: u64,
}

impl Origin {
    fn out(&mut self) -> &mut DirectoriesOut {
        self.directories_out.as_mut().expect("asked for where directories cross the border alone")
    }

    pub fn may_arrive(&mut self, may: bool) {
        if let Some(out) = &mut self.directories_out {
            out.may_arrive = may;
        }
    }

    /// Of an object that still has names.
    pub fn links_told(&self, links: u32) -> u32 {
        if links > 0 && self.directories_out.is_some() { LINKS_UNKNOWN } else { links }
    }

    fn below(&self, tops: impl IntoIterator<Item = u64>) -> BTreeSet<u64> {
        let mut found = BTreeSet::new();
        let mut rest: Vec<u64> = tops.into_iter().collect();
        while let Some(number) = rest.pop() {
            if found.insert(number) {
                rest.extend(self.objects[&number].names.values());
            }
        }
        found
    }

    pub fn inside(&self) -> BTreeSet<u64> {
        match self.directories_out {
            Some(_) => self.below([ROOT]),
            None => self.objects.keys().copied().collect(),
        }
    }

    pub fn in_the_set(&self, number: u64) -> Option<&Object> {
        let object = self.objects.get(&number)?;
        let is_in = self.directories_out.is_none() || self.below([ROOT]).contains(&number);
        is_in.then_some(object)
    }

    /// All that is out, and out only.
    fn outside(&self) -> BTreeSet<u64> {
        let tops = self.directories_out.iter().flat_map(|out| out.tops.iter().copied());
        let inside = self.inside();
        self.below(tops).into_iter().filter(|number| !inside.contains(number)).collect()
    }

    fn names_out(&self) -> Vec<(u64, String, u64)> {
        let dirs = self.outside().into_iter();
        dirs.flat_map(|dir| {
            self.objects[&dir].names.iter().map(move |(name, held)| (dir, name.clone(), *held))
        })
        .collect()
    }

    pub fn directories_cross(
        &mut self,
        (dir, new): (u64, &str),
        names: &[(u64, String, u64)],
        random: &mut Random,
    ) {
        let directories: Vec<_> =
            names.iter().filter(|(_, _, held)| self.objects[held].is_directory()).collect();
        let files: Vec<_> =
            names.iter().filter(|(_, _, held)| self.objects[held].birth == Birth::File).collect();
        match random.below(10) {
            0..2 => {
                let Some((from, name, _)) = random.pick(&directories) else { return };
                self.leave_with_all(*from, name, random);
            }
            2 => {
                let Some((from, name, _)) = random.pick(&files) else { return };
                self.file_leaves(*from, name, random);
            }
            3..5 if self.held(dir, new).is_none() => self.arrives(dir, new, random),
            3..5 => {}
            _ => self.change_out_there(names, random),
        }
    }

    /// To where nobody tells of it.
    fn put_out(&mut self, object: u64, random: &mut Random) {
        let dirs: Vec<u64> =
            self.outside().into_iter().filter(|number| self.objects[number].is_directory()).collect();
        let name = format!("n{}", random.below(NAMES));
        let into = random.pick(&dirs).copied();
        match into.filter(|dir| random.one_in(2) && self.held(*dir, &name).is_none()) {
            Some(dir) => self.set(dir, &name, object),
            None if self.objects[&object].is_directory() => _ = self.out().tops.insert(object),
            // A file is in a directory.
            None => {
                let top = self.next;
                self.next += 1;
                let mut made = self.new_object(Birth::Directory);
                made.names.insert(name, object);
                self.objects.insert(top, made);
                self.out().tops.insert(top);
            }
        }
    }

    fn leave_with_all(&mut self, from: u64, name: &str, random: &mut Random) {
        let object = self.unset(from, name);
        let (at, dir_mtime) = (Origin::at(from, name), self.touch(from));
        self.say(Op::Leave { at, dir_mtime, object: id(object) }, Vec::new());
        self.put_out(object, random);
        self.out().left += 1;
    }

    fn file_leaves(&mut self, from: u64, name: &str, random: &mut Random) {
        let object = self.unset(from, name);
        let (at, dir_mtime) = (Origin::at(from, name), self.touch(from));
        let links = if self.objects[&object].links == 1 { 0 } else { LINKS_UNKNOWN };
        self.say(Op::Unlink { at, dir_mtime, object: id(object), links }, Vec::new());
        self.put_out(object, random);
    }

    /// A directory, or a file, gets a name in the set.
    fn arrives(&mut self, dir: u64, new: &str, random: &mut Random) {
        let names = self.names_out();
        let tops: Vec<u64> = self.out().tops.iter().copied().collect();
        let top = random.pick(&tops).copied().filter(|_| random.one_in(2));
        let (from, object) = match (top, random.pick(&names).cloned()) {
            (Some(top), _) => (None, top),
            (None, Some((from, name, object))) => (Some((from, name)), object),
            (None, None) => return,
        };
        let (is_directory, is_file) =
            (self.objects[&object].is_directory(), self.objects[&object].birth == Birth::File);
        let is_told = is_file && !random.one_in(3);
        if !is_told && !self.out().may_arrive || is_directory && self.is_below(dir, object) {
            return;
        }
        match from {
            Some((from, name)) => _ = self.unset(from, &name),
            None => _ = self.out().tops.remove(&object),
        }
        self.out().came += 1;
        if is_told {
            // Where it has others, nobody looks whether one is in the set.
            let may_be_known = self.objects[&object].links > 1;
            return self.come(object, dir, new, may_be_known);
        }
        self.set(dir, new, object);
        let (at, dir_mtime) = (Origin::at(dir, new), self.touch(dir));
        self.say(Op::Place { object: id(object), at, dir_mtime, replaced: None }, Vec::new());
    }

    fn change_out_there(&mut self, names: &[(u64, String, u64)], random: &mut Random) {
        let outside: Vec<u64> = self.outside().into_iter().collect();
        let dirs: Vec<u64> =
            outside.iter().copied().filter(|number| self.objects[number].is_directory()).collect();
        let (Some(&object), Some(&dir)) = (random.pick(&outside), random.pick(&dirs)) else { return };
        self.out().untold += 1;
        let name = format!("n{}", random.below(NAMES));
        let (is_free, now) = (self.held(dir, &name).is_none(), self.now());
        match random.below(10) {
            0..5 => {
                let there = self.objects.get_mut(&object).unwrap();
                (there.mode, there.mtime) = (0o600 | random.below(0o100) as u32, now);
                let byte = random.below(255) as u8 + 1;
                there.content.iter_mut().skip(random.below(2000) as usize).for_each(|old| *old ^= byte);
            }
            5 | 6 => {
                let removable = |(dir, _, held): &&(u64, String, u64)| {
                    self.objects[held].names.is_empty() && outside.contains(dir)
                };
                let of_out = self.names_out();
                let Some((dir, name, held)) = random
                    .pick(&of_out.iter().filter(removable).collect::<Vec<_>>())
                    .map(|one| (*one).clone())
                else {
                    return;
                };
                self.unset(dir, &name);
                self.drop_link(held);
                self.objects.get_mut(&dir).unwrap().mtime = now;
            }
            7 if is_free && self.objects.len() < OBJECTS_MAX => {
                let (number, made) = (self.next, self.new_object(Birth::File));
                self.next += 1;
                self.objects.insert(number, made);
                self.set(dir, &name, number);
            }
            // A link to what is in the set, or out of it.
            8 if is_free => {
                let of_out = self.names_out();
                let files = names
                    .iter()
                    .chain(&of_out)
                    .filter(|(_, _, held)| self.objects[held].birth == Birth::File);
                let Some(held) = random.pick(&files.collect::<Vec<_>>()).map(|one| one.2) else { return };
                self.objects.get_mut(&held).unwrap().links += 1;
                self.set(dir, &name, held);
            }
            _ => {
                let of_out = self.names_out();
                let Some((from, old, held)) = random.pick(&of_out).cloned() else { return };
                if is_free && !self.is_below(dir, held) {
                    self.unset(from, &old);
                    self.set(dir, &name, held);
                }
            }
        }
    }
}

fn world() -> World {
    let mut world = World::new();
    world.origin.directories_out = Some(DirectoriesOut::default());
    world
}

#[test]
fn what_was_out_of_the_set_comes_back_as_it_is() {
    let mut seen = [0; 3];
    for seed in seeds(200) {
        println!("seed {seed}");
        let mut world = world();
        super::story(&mut world, seed, &mut Random::new(seed))
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let out = world.origin.out();
        seen = [seen[0] + out.left, seen[1] + out.came, seen[2] + out.untold];
    }
    println!("left, came, untold: {seen:?}");
    assert!(seeds(200).len() < 200 || seen.iter().all(|count| *count > 300), "{seen:?}");
}

/// Sessions of what is owed, that is what was marked: out of the set nothing is.
#[test]
fn what_was_out_of_the_set_is_owed_as_it_is() {
    let mut seen = [0; 3];
    for seed in seeds(200) {
        println!("seed {seed}");
        let (mut world, mut random) = (world(), Random::new(seed));
        outages(&mut world, &mut random, seed, None).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        seen = [seen[0] + world.seen.sessions, seen[1] + world.seen.whole, seen[2] + world.origin.out().came];
    }
    println!("sessions, whole ones, came: {seen:?}");
    assert!(seeds(200).len() < 200 || seen[0] > 2 * seen[1] && seen[2] > 300, "{seen:?}");
}

/// One seed in some hundreds comes upon each.
#[test]
fn trusting_what_was_out_is_missed() {
    for planted in [Planted::TrustsWhatWaits, Planted::TrustsALinkFromOutside] {
        planted::set(Some(planted));
        let is_caught = (1..=3000).any(|seed| is_missed(|| run_in(world(), seed)));
        planted::set(None);
        assert!(is_caught, "{planted:?}");
    }
}
