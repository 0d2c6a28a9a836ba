//! A start: the target was good in an earlier run, and what has changed since is found by change times,
//! while programs work.

use std::os::unix::fs::MetadataExt;

use super::*;
use crate::resync::Search;

impl Scene {
    /// What the target has is as of the end of a run; then things change that nobody captures.
    pub(super) fn restarted(place: &Path, random: &mut Random) -> Scene {
        let first = Scene::new(place);
        Worker::new(&first.volume, random.clone()).run(random.below(80) as usize);
        first.deliver_all();
        first.target.lock().is_up_to_date();
        let since = moment(place);
        let Scene { backing, target, volume, .. } = first;
        drop(volume);
        let other = Random::new(random.number());
        Worker::new(&Scene::over(backing.clone(), None).volume, other).run(random.below(60) as usize);
        Scene { since: Some(since), good_at: Some(since), ..Scene::over(backing, Some(target)) }
    }

    /// What has changed since, and what is marked in this run.
    pub(super) fn only_since(
        &self,
        since: Timestamp,
        copy: LiveCopy<Pump>,
        bug: Option<Bug>,
    ) -> LiveCopy<Pump> {
        let map = self.volume.map().unwrap().clone();
        let marked: crate::resync::WhatIsOwed =
            Arc::new(move || map.changed_since(Sequence(0)).map(Owed::from));
        let backing = OwnedFd::from(File::open(&self.backing).unwrap());
        let mut others_come = || {
            turns::turn();
            Ok(())
        };
        let search = Search::new(backing, 1.into(), since, &marked, &mut others_come).unwrap();
        let planted = if let Some(Bug::Search(planted)) = bug { Some(planted) } else { None };
        let found = search.planting(planted).run().unwrap();
        let now = move || Some(found.clone().and(marked()?));
        let first = now().unwrap();
        copy.only(Arc::new(first), Arc::new(now), None)
    }
}

/// Later than all changes so far, and not later than those that are to come.
pub(super) fn moment(place: &Path) -> Timestamp {
    let probe = place.join("probe");
    let stamp = || {
        std::fs::write(&probe, "x").unwrap();
        let status = std::fs::metadata(&probe).unwrap();
        Timestamp { seconds: status.ctime(), nanoseconds: status.ctime_nsec() as u32 }
    };
    let before = stamp();
    loop {
        let now = stamp();
        if now > before {
            return now;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}
