use super::log::RECORD_LEN;
use super::*;

fn id(inode: u64) -> ObjectId {
    ObjectId { birth_epoch: 1, generation: 1, inode }
}

fn open(state: &Path) -> Incomplete {
    let (log, few) = Log::open(state).unwrap();
    let list = Index::open(&state.join(FILE)).unwrap();
    let left = random_u64();
    Incomplete { list, log, few, left, marks: left }
}

/// However many there are and whenever the process dies: what was added and written is on it, what was removed
/// and written is not.
#[test]
fn random_changes_agree_with_a_map_over_kills() {
    let state = tempfile::tempdir().unwrap();
    let mut incomplete = open(state.path());
    let mut model: HashMap<ObjectId, Lack> = HashMap::new();
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let (mut most, mut in_list, mut replaced) = (0, false, false);
    for step in 0..20_000u64 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let object = id((random >> 33) % 40);
        let before = incomplete.log.len;
        match random >> 60 {
            0..6 => {
                incomplete.add_soon(object).unwrap();
                model.entry(object).or_insert(Lack::Content);
            }
            6 => {
                incomplete.leave(object).unwrap();
                model.insert(object, Lack::Left);
            }
            7 if step % 16 == 0 => {
                incomplete.write().unwrap();
                // Killed: nothing is written at its end.
                incomplete.log.unwritten.clear();
                incomplete = open(state.path());
                model.values_mut().for_each(|lack| *lack = Lack::Content);
            }
            _ => {
                incomplete.remove(object).unwrap();
                model.remove(&object);
            }
        }
        if random >> 50 & 3 == 0 {
            incomplete.write().unwrap();
        }
        replaced |= incomplete.log.len < before;
        assert_eq!(incomplete.lack(object).unwrap(), model.get(&object).copied(), "step {step}");
        most = most.max(model.len());
        in_list |= !incomplete.list.is_empty();
    }
    let mut waiting = incomplete.waiting().unwrap();
    waiting.sort_unstable();
    let mut expected: Vec<_> =
        model.iter().filter(|&(_, &lack)| lack == Lack::Content).map(|(&id, _)| id).collect();
    expected.sort_unstable();
    assert_eq!(waiting, expected);
    assert!(most > INCOMPLETE_IN_MEMORY && in_list && replaced, "{most} {in_list} {replaced}");
}

#[test]
fn a_torn_record_hides_no_other_one() {
    let state = tempfile::tempdir().unwrap();
    let mut incomplete = open(state.path());
    for inode in 1..=3 {
        incomplete.add(id(inode)).unwrap();
    }
    drop(incomplete);
    let path = state.path().join(LOG);
    let mut bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes.len(), 3 * RECORD_LEN);
    bytes[RECORD_LEN + 20] ^= 1;
    bytes.extend([7; 5]);
    std::fs::write(&path, bytes).unwrap();
    let incomplete = open(state.path());
    let lacks = [1, 2, 3].map(|inode| incomplete.lack(id(inode)).unwrap());
    assert_eq!(lacks, [Some(Lack::Content), None, Some(Lack::Content)]);
}

/// What is kept for good by another one is removed with the rest.
#[test]
fn what_is_on_the_list_and_in_the_log_goes_from_both() {
    let state = tempfile::tempdir().unwrap();
    remember(state.path(), &[id(1), id(2)]).unwrap();
    let mut incomplete = open(state.path());
    incomplete.leave(id(1)).unwrap();
    assert_eq!(incomplete.lack(id(1)).unwrap(), Some(Lack::Left));
    assert_eq!(incomplete.waiting().unwrap(), [id(2)]);
    incomplete.remove(id(1)).unwrap();
    drop(incomplete);
    assert_eq!(open(state.path()).waiting().unwrap(), [id(2)]);
}
