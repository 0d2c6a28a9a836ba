//! One of every kind of thing that travels, and some that a kind holds in itself.

mod ops;

pub(super) use ops::ops;

use super::*;

pub(super) fn object(inode: u64) -> ObjectId {
    ObjectId { birth_epoch: 1, generation: 2, inode }
}

pub(super) fn attributes() -> Attributes {
    Attributes { mode: 0o644, uid: 1, gid: 2, mtime: Timestamp { seconds: 3, nanoseconds: 4 } }
}

pub(super) fn position() -> Position {
    Position {
        epoch: Epoch { number: 1, writer: 0x0102_0304_0506_0708 },
        incarnation: Incarnation(9),
        sequence: Sequence(10),
        chain: Chain(11),
    }
}

fn xattrs() -> Vec<Xattr> {
    (0..3).map(|n| Xattr { name: xattr_name(), value: Bounded(vec![n; 20]) }).collect()
}

fn xattr_name() -> XattrName {
    Bounded(b"user.x".to_vec())
}

fn entry(name: &str) -> Entry {
    Entry { dir: object(9), name: Name::new(name.as_bytes()).unwrap() }
}

fn result() -> ContentResult {
    ContentResult { size: 9, mtime: attributes().mtime, mode: Some(7) }
}

fn text() -> Text {
    Text::from_str_cut("a reason")
}

pub(super) fn births() -> Vec<Birth> {
    vec![
        Birth::File,
        Birth::Directory,
        Birth::Symlink { target: Bounded(b"../there".to_vec()) },
        Birth::Fifo,
        Birth::Socket,
        Birth::CharDevice { major: 1, minor: 3 },
        Birth::BlockDevice { major: 1, minor: 3 },
    ]
}

pub(super) fn reserves() -> Vec<Reserve> {
    vec![
        Reserve::Allocate,
        Reserve::AllocateKeepSize,
        Reserve::PunchHole,
        Reserve::ZeroRange,
        Reserve::ZeroRangeKeepSize,
    ]
}

pub(super) fn unlisted() -> Vec<Unlisted> {
    vec![Unlisted::These(vec![Name::new(b"a").unwrap()]), Unlisted::TheRest, Unlisted::NotShown]
}

pub(super) fn keepings() -> Vec<Keeping> {
    vec![Keeping::InPlace, Keeping::Aside { into: Name::new(b"deleted").unwrap(), days: 30 }]
}

pub(super) fn items() -> Vec<LaneItem> {
    let listed = |name: &str| ListedObject {
        name: Name::new(name.as_bytes()).unwrap(),
        object: object(1),
        birth: Birth::File,
        attributes: attributes(),
        xattrs: xattrs(),
        large_xattrs: false,
        size: 5,
        links: 1,
        suspect: false,
    };
    let entries = vec![listed("a"), listed("b"), listed("c")];
    let mut items = vec![
        LaneItem::Begin,
        LaneItem::Root { object: object(1), attributes: attributes(), xattrs: xattrs() },
        listing(entries, None),
        LaneItem::OpenContent { object: object(1) },
        LaneItem::Content { object: object(1), hole: 2, offset: 7 },
        LaneItem::CloseContent {
            object: object(1),
            hole: 0,
            size: 1,
            attributes: attributes(),
            xattrs: xattrs(),
        },
        LaneItem::Xattrs { object: object(1), attributes: attributes(), names: vec![xattr_name()] },
        LaneItem::Xattr { object: object(1), name: xattr_name() },
        LaneItem::Attributes { object: object(1), attributes: attributes() },
        LaneItem::Leave { object: object(1) },
        LaneItem::Afresh,
        LaneItem::LeftOut { left_out: LeftOut { count: 2, named: vec![Text::from_str_cut("a")] } },
        LaneItem::End,
        LaneItem::NotListed { dir: object(1) },
        LaneItem::NamesMatch,
        LaneItem::Rules {
            rules: vec![SetRule { includes: true, is_recursive: false, pattern: Bounded(b"*.db".to_vec()) }],
        },
        LaneItem::Within { dir: object(1), path: Bounded(b"a/b".to_vec()) },
        LaneItem::BeginOwed { percent_max: Some(50), compares: false },
        LaneItem::Owed { objects: (0..20).map(object).collect() },
    ];
    items.extend(keepings().into_iter().map(|keeping| LaneItem::Keeping { keeping }));
    items.extend(orphan_rules().into_iter().map(|rule| LaneItem::OrphanRules { rule, age_ms: 5 }));
    items.extend(block_hashes().into_iter().map(|hash| LaneItem::CheckBegin { content: Some(hash) }));
    items.extend([
        LaneItem::Hashes { object: object(1), offset: 1 << 20, size: 1 << 21, hashes: vec![7; 3] },
        LaneItem::Hole { object: object(1), offset: 1 << 20, end: 1 << 30, size: 1 << 31 },
        LaneItem::CheckStop,
        LaneItem::ByBlocks { hash: BlockHash::Fast { key: [7; 32] }, least: 9 },
        LaneItem::OpenBlocks { object: object(1) },
        LaneItem::CloseSame { object: object(1), size: 1, attributes: attributes(), xattrs: xattrs() },
    ]);
    items.extend(unlisted().into_iter().map(|names| listing(Vec::new(), Some(names))));
    items
}

/// Of two that a person has decided between.
fn history() -> History {
    let mut history = History::default();
    history.raise(Epoch { number: 2, writer: 3 }, 4, position());
    history.overrule(&History::of(Epoch { number: 2, writer: 5 }));
    history
}

fn listing(entries: Vec<ListedObject>, unlisted: Option<Unlisted>) -> LaneItem {
    let (dir, dir_mtime) = (object(1), attributes().mtime);
    LaneItem::Listing { dir, dir_mtime, entries, unlisted, first: true, last: true }
}

pub(super) fn source_messages() -> Vec<SourceMessage> {
    vec![
        SourceMessage::Hello {
            version_oldest: 1,
            version: 2,
            features: Features(3),
            set: SetId(4),
            set_name: Text::from_str_cut("web"),
            last: position(),
            oldest: Sequence(5),
        },
        SourceMessage::StreamFrom { after: position() },
        SourceMessage::MakeDurable,
        SourceMessage::Goodbye,
        SourceMessage::Ask { set_name: Text::from_str_cut("web") },
        SourceMessage::Diverged { reason: text() },
        SourceMessage::Relief { objects: (0..20).map(object).collect() },
        SourceMessage::Restore {
            version_oldest: 1,
            version: 2,
            features: Features(3),
            set_name: Text::from_str_cut("web"),
            accept_bad_data: true,
        },
    ]
    .into_iter()
    .chain(said_of_copies().into_iter().map(SourceMessage::OfCopy))
    .chain([
        SourceMessage::GaveOut { last: position(), at: SourceClock { wall_ms: 10, steady_ms: 11 } },
        SourceMessage::Writes(Writes { history: history(), runs: runs(), overwrites: true }),
        SourceMessage::AskReplica { set_name: Text::from_str_cut("web") },
        SourceMessage::Runs { runs: runs() },
    ])
    .collect()
}

fn runs() -> Vec<Incarnation> {
    [1, 2].map(Incarnation).to_vec()
}

pub(super) fn said_of_copies() -> Vec<OfCopy> {
    vec![
        OfCopy::Wanted { listing: ItemNumber(1), objects: (0..20).map(object).collect() },
        OfCopy::Doubt { directories: (0..20).map(object).collect() },
        OfCopy::Complete { end: ItemNumber(1) },
    ]
}

pub(super) fn block_hashes() -> Vec<BlockHash> {
    vec![BlockHash::Fast { key: [7; 32] }, BlockHash::Audit { key: [8; 32] }]
}

pub(super) fn difference_kinds() -> Vec<DifferenceKind> {
    use DifferenceKind::*;
    vec![Missing, Extra, Type, Object, Size, Content, Mode, Owner, Mtime, Xattr, Unreadable]
}

pub(super) fn orphan_rules() -> Vec<OrphanRule> {
    vec![OrphanRule::Aside, OrphanRule::Keep, OrphanRule::Delete { percent_max: Some(50) }]
}

pub(super) fn data_states() -> Vec<DataState> {
    vec![DataState::Empty, DataState::Good, DataState::Bad]
}

pub(super) fn bad_bys() -> Vec<BadBy> {
    vec![BadBy::Anything, BadBy::Aside, BadBy::Relief, BadBy::Owed]
}

pub(super) fn stucks() -> Vec<Stuck> {
    vec![Stuck::Object, Stuck::Target, Stuck::Full, Stuck::Marker]
}

pub(super) fn standings() -> Vec<Standing> {
    vec![Standing::Welcome(text()), Standing::Unwelcome(text())]
}

fn holdings() -> Holdings {
    Holdings {
        fs_type: Text::from_str_cut("xfs"),
        read_only: false,
        user_xattrs: true,
        trusted_xattrs: false,
        acls: true,
        case_insensitive: false,
        flags: true,
        name_len_max: 255,
        xattr_len_max: 3,
        nanoseconds: true,
        early_times: false,
        late_times: true,
        file_len_max: 4,
        free_bytes: 5,
        free_inodes: Some(6),
        is_fresh: true,
    }
}

fn about(standing: Standing) -> TargetMessage {
    let product = Text::from_str_cut("1.2.3");
    TargetMessage::About { version_oldest: 1, version: 2, product, now_ms: 4, standing }
}

pub(super) fn target_messages() -> Vec<TargetMessage> {
    let proof = ReplicaProof {
        data: DataState::Bad,
        bad_by: BadBy::Relief,
        applied: position(),
        durable: Position { sequence: Sequence(9), ..position() },
        received: Position { sequence: Sequence(12), ..position() },
        process: 13,
    };
    let mut messages = vec![
        TargetMessage::Welcome { version: 1, features: Features(2), proof },
        TargetMessage::Refused { reason: text() },
        TargetMessage::Acknowledge { received: Sequence(3), applied: Sequence(2), durable: Sequence(1) },
        TargetMessage::Wanted { listing: ItemNumber(1), objects: (0..20).map(object).collect() },
        TargetMessage::Resynchronised {
            end: ItemNumber(1),
            orphans: 2,
            left_out: LeftOut { count: 3, named: vec![Text::from_str_cut("a")] },
        },
        TargetMessage::Retrying {
            sequence: Sequence(1),
            op: Text::from_str_cut("write"),
            reason: text(),
            attempts: 2,
            stuck: Stuck::Full,
        },
        TargetMessage::Recovered { sequence: Sequence(1) },
        TargetMessage::Data { state: DataState::Bad, reason: text(), aside: 1 },
        TargetMessage::SetAside { path: text(), op: text(), reason: text(), since_ms: 3 },
        TargetMessage::Withheld(WithheldCounts {
            devices: 1,
            setuid_bits: 2,
            security_xattrs: 3,
            times: 4,
            flags: 5,
        }),
        TargetMessage::Doubt { directories: (0..20).map(object).collect() },
        TargetMessage::Restoring {
            version: 1,
            features: Features(2),
            set: SetId(4),
            data: DataState::Bad,
            reason: text(),
            allowed: text(),
            applied: position(),
        },
    ];
    messages.extend(said_of_checks());
    messages.extend(standings().into_iter().map(about));
    messages
}

fn said_of_checks() -> Vec<TargetMessage> {
    let difference =
        |kind| Difference { kind, object: Some(object(1)), path: Bounded(b"a/b".to_vec()), bytes: 5 };
    vec![
        TargetMessage::Hashed { item: ItemNumber(1), differing: 6 },
        TargetMessage::Differences { found: difference_kinds().into_iter().map(difference).collect() },
        TargetMessage::Checked {
            end: ItemNumber(1),
            counts: CheckCounts {
                compared: 1,
                missing: 2,
                extra: 3,
                different: 4,
                bytes_compared: 5,
                bytes_out_of_step: 6,
            },
        },
        TargetMessage::NotChecked { reason: text() },
        TargetMessage::CheckStopped,
        TargetMessage::Orphans(OrphanCounts { moved: 1, kept: 2, deleted: 3, spared: 4 }),
        TargetMessage::Holds(holdings()),
        TargetMessage::HasOld { listing: ItemNumber(1), objects: (0..20).map(object).collect() },
        TargetMessage::KeptOut { epoch: Epoch { number: 2, writer: 3 }, reason: text() },
        TargetMessage::WrittenIn { set: SetId(7), epoch: Epoch { number: 2, writer: 3 } },
        TargetMessage::Marker { sequence: Sequence(1), end: MarkerEnd::TimedOut, text: text() },
        TargetMessage::AskHistory,
        TargetMessage::Wrote { history: history() },
        TargetMessage::Replica(Some(ReplicaStands {
            set: SetId(7),
            history: history(),
            data: DataState::Good,
            applied: position(),
            source: Some(OtherSource { who: text(), answers: true }),
        })),
    ]
}

pub(super) fn names() -> OwnerNames {
    let name = |name: &[u8]| Bounded(name.to_vec());
    OwnerNames { users: vec![(1, name(b"ada"))], groups: vec![(2, name(b"staff")), (3, name(b"web"))] }
}

pub(super) fn pairing_requests() -> Vec<PairingRequest> {
    vec![PairingRequest { version: 1, token: 2, set_name: Text::from_str_cut("web"), proof: [7; 32] }]
}

pub(super) fn pairing_answers() -> Vec<PairingAnswer> {
    vec![PairingAnswer::Paired, PairingAnswer::Refused { reason: text() }]
}
