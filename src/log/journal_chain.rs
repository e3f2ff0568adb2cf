//! Journal chain: the journal's files, and the groups that follow each other through them.
//!
//! Promises: decides where the journal ends by the rules of `verdict`, the same for recovery and
//!           verify; reads, and flushes before it reads where the lane is to be served.

use std::path::Path;

use super::disk::{Disk, failed};
use super::format::{BLOCK_BYTES, EntryKind, VERSION};
use super::image::{Counted, FoundImage};
use super::mutation::{self, Mutation};
use super::options::{LaneError, LogId};
use super::prewrite;
use super::redo::{Contradiction, Redo};
use super::replay::{Chain, FirstGroup, FoundFile, GROUP_BYTES_MAX, Group, Walker, entries, item_end};
use super::touched::{self, Touched};
use super::verdict::{Found, Later, Verdict, judge};
use crate::ring::{IoError, OpenMode};

/// A second group begins before this.
const FIRST_BYTES_MAX: u64 = GROUP_BYTES_MAX + 2 * BLOCK_BYTES as u64;

/// Where replay ended.
pub(super) struct ReplayEnd {
    pub(super) chain: Chain,
    /// Files in the order of their groups.
    pub(super) used: Vec<FoundFile>,
    pub(super) position: u64,
    pub(super) item_next: u64,
    pub(super) groups_count: u64,
    pub(super) bytes: u64,
    pub(super) torn: Option<String>,
    /// What the next group is to say about the newest ones.
    pub(super) touched: Touched,
}

/// Groups that were durable and are lost.
pub(super) struct Gap {
    /// Entries from here on were not in it.
    pub(super) item_end: u64,
    /// Whose entries were in it. None: of any partition whose row doesn't reflect all of it.
    pub(super) logs: Option<Vec<LogId>>,
    /// Where an image tells: it made no partition with this number or a larger one.
    pub(super) log_next: u32,
    /// For the operator.
    pub(super) what: String,
}

/// The journal files, flushed where they may be written, with what they begin with.
pub(super) fn find_files(
    disk: &mut Disk<'_>,
    dir: &Path,
    log_id: &[u8; 16],
    mode: OpenMode,
) -> Result<Vec<FoundFile>, LaneError> {
    let journal_dir = dir.join("journal");
    let mut files = Vec::new();
    for entry in disk.list_dir(&journal_dir)? {
        let number = entry.name.strip_suffix(".journal").and_then(|stem| stem.parse().ok());
        let Some(number) = number else { continue };
        let path = journal_dir.join(&entry.name);
        let file = disk.open(&path, mode).map_err(|error| failed("opening", &path, error))?;
        if mode == OpenMode::Write {
            disk.flush_found(file).map_err(|error| failed("flush of", &path, error))?;
        }
        let mut found = FoundFile { number, file, bytes: entry.bytes, first: None, ready: false };
        let header =
            Walker::new(disk, *log_id).header(&found, 0).map_err(|error| failed("reading", &path, error))?;
        match header {
            Ok(header) => {
                found.ready = true;
                found.first = Some(FirstGroup::new(&header));
            }
            Err(Found::Newer) => {
                return Err(LaneError::NewerVersion {
                    what: path.display().to_string(),
                    version: VERSION + 1,
                });
            }
            Err(_) => {
                found.ready = Walker::new(disk, *log_id)
                    .is_stamped(&found)
                    .map_err(|error| failed("reading", &path, error))?;
            }
        }
        files.push(found);
    }
    Ok(files)
}

/// Walks the groups from the image's first one on; `redo`, made from that image, takes their entries.
pub(super) fn replay(
    disk: &mut Disk<'_>,
    dir: &Path,
    image: &FoundImage,
    files: &[FoundFile],
    group_bytes_max: u64,
    redo: &mut Redo,
) -> Result<ReplayEnd, LaneError> {
    let damaged = |what: String| LaneError::Damaged { what: format!("{}: {what}", dir.display()) };
    let mut walk = Walk::new(disk, dir, image, files, group_bytes_max);
    loop {
        let group = match walk.next()? {
            Next::Group(group) => group,
            Next::Gap(gap, group) => {
                let first = walk.end.chain.number;
                let logs = redo.gap(&gap).map_err(|Contradiction(what)| damaged(what))?;
                walk.end.touched.restart(first, logs.into_iter());
                match group {
                    Some(group) => group,
                    None => return Ok(walk.end_after_gap()),
                }
            }
            Next::End => return Ok(walk.end),
        };
        let incarnation =
            walk.current.as_ref().and_then(|file| file.first).map_or(0, |first| first.incarnation);
        let number = group.header.number.get();
        let malformed = || damaged(format!("group {number} is intact and malformed"));
        for entry in entries(&group).ok_or_else(malformed)? {
            walk.end.touched.note(entry.kind, LogId(entry.header.log.get()));
            redo.apply(&entry, incarnation).map_err(|Contradiction(what)| damaged(what))?;
        }
        walk.pass(&group, item_end(&group).ok_or_else(malformed)?);
    }
}

/// What comes next.
enum Next {
    Group(Group),
    /// Groups are lost; the one behind them, unless they were the last.
    Gap(Gap, Option<Group>),
    End,
}

struct Walk<'a, 'd, 'r> {
    walker: Walker<'d, 'r>,
    dir: &'a Path,
    counted: Counted,
    files: &'a [FoundFile],
    current: Option<FoundFile>,
    end: ReplayEnd,
}

impl<'a, 'd, 'r> Walk<'a, 'd, 'r> {
    fn new(
        disk: &'d mut Disk<'r>,
        dir: &'a Path,
        image: &FoundImage,
        files: &'a [FoundFile],
        group_bytes_max: u64,
    ) -> Self {
        let header = &image.header;
        let chain = Chain {
            number: header.replay_number.get(),
            previous_checksum: header.replay_previous.get(),
            incarnation: 0,
        };
        let end = ReplayEnd {
            chain,
            used: Vec::new(),
            position: 0,
            item_next: header.item_next.get(),
            groups_count: 0,
            bytes: 0,
            torn: None,
            touched: Touched::new(group_bytes_max),
        };
        let walker = Walker::new(disk, header.log_id);
        Self { walker, dir, counted: image.counted, files, current: None, end }
    }

    fn next(&mut self) -> Result<Next, LaneError> {
        let found = match &self.current {
            Some(file) if self.end.position < file.bytes => {
                match self.walker.group(file, self.end.position, self.end.chain) {
                    Ok(group) => return Ok(Next::Group(group)),
                    Err(found) => found,
                }
            }
            _ => Found::Nothing,
        };
        // The file may be full: does another one go on?
        match self.next_file() {
            Some((file, Ok(group))) => {
                self.enter(file, 0);
                Ok(Next::Group(group))
            }
            Some((_, Err(worse))) => self.judge(worst(found, worse)),
            None => self.judge(found),
        }
    }

    /// The file whose first group follows the chain, and that group or what is there instead.
    fn next_file(&mut self) -> Option<(FoundFile, Result<Group, Found>)> {
        let chain = self.end.chain;
        let follows = |first: &FirstGroup| {
            first.number == chain.number && first.previous_checksum == chain.previous_checksum
        };
        let file = self.files.iter().find(|file| file.first.as_ref().is_some_and(follows))?;
        let group = self.walker.group(file, 0, chain);
        Some((file.clone(), group))
    }

    fn enter(&mut self, file: FoundFile, position: u64) {
        self.end.position = position;
        self.end.used.push(file.clone());
        self.current = Some(file);
    }

    fn pass(&mut self, group: &Group, item_end: u64) {
        self.end.chain = Chain {
            number: group.header.number.get() + 1,
            previous_checksum: group.header.header_checksum.get(),
            incarnation: group.header.incarnation.get(),
        };
        self.end.touched.end_group(group.header.number.get(), group.size_bytes());
        self.end.item_next = item_end;
        self.end.position += group.size_bytes();
        self.end.bytes += group.size_bytes();
        self.end.groups_count += 1;
    }

    // ---- Where no group follows --------------------------------------------------------------

    /// Is it the end, a torn group, or damage?
    fn judge(&mut self, found: Found) -> Result<Next, LaneError> {
        let found = if self.is_short() && !mutation::is(Mutation::IgnoreShortFile) {
            worst(found, Found::Short)
        } else {
            found
        };
        let number = self.end.chain.number;
        // An image waits for the entries that its rows reflect: the group that has the last of them may be one
        // behind those that it counts.
        let counts = number <= self.counted.group || self.end.item_next < self.counted.item;
        let counted = counts && !mutation::is(Mutation::IgnoreCounted);
        let later = match found {
            Found::Unreadable | Found::Newer => None,
            Found::Nothing | Found::HeaderOnly | Found::Short => self.find_later(number)?,
        };
        let names = later.as_ref().and_then(|later| named_since(&later.group, number));
        let seen = match (&later, &names) {
            (None, _) => Later::None,
            (Some(_), Some(_)) => Later::Names,
            (Some(_), None) => Later::Silent,
        };
        let place = match &self.current {
            Some(file) => format!("{} at {}", prewrite::file_name(file.number), self.end.position),
            None => "no file".to_owned(),
        };
        let dir = self.dir.display();
        let seen = if mutation::is(Mutation::EndAtFirstBadGroup) { Later::None } else { seen };
        match judge(found, counted, seen) {
            Verdict::End => Ok(Next::End),
            Verdict::Torn => {
                self.end.torn = Some(place);
                Ok(Next::End)
            }
            Verdict::Gap => {
                let what = format!("journal group {number} ({place}) is missing or changed");
                Ok(match later {
                    Some(later) => {
                        let item_end = later.group.header.item_first.get();
                        let gap = Gap { item_end, logs: names, log_next: 0, what };
                        Next::Gap(gap, Some(self.skip_to(later)))
                    }
                    None => {
                        let Counted { item: item_end, log_next, .. } = self.counted;
                        Next::Gap(Gap { item_end, logs: None, log_next, what }, None)
                    }
                })
            }
            Verdict::Damage => {
                let what = format!(
                    "{dir}: journal group {number} ({place}) and others behind it are missing or changed: what was in them isn't known"
                );
                Err(LaneError::Damaged { what })
            }
            Verdict::ReadError => Err(failed("reading the journal in", self.dir, IoError::Os(5))),
            Verdict::NewerVersion => {
                Err(LaneError::NewerVersion { what: format!("{dir}: {place}"), version: VERSION + 1 })
            }
        }
    }

    /// The current file isn't as long as it was.
    fn is_short(&self) -> bool {
        let current = self.current.as_ref();
        current.is_some_and(|file| file.first.is_some_and(|first| file.bytes < first.file_bytes))
    }

    /// The intact group with the smallest number above `number`.
    fn find_later(&mut self, number: u64) -> Result<Option<LaterGroup>, LaneError> {
        let mut nearest: Option<LaterGroup> = None;
        for file in self.files {
            let is_current = self.current.as_ref().is_some_and(|current| current.number == file.number);
            // Of other files their first group tells, where it is there: a write of it that the disk dropped
            // left the one of the file's last life or the stamp, and the next group stands behind its place.
            let begins_later = file.first.map_or(!file.ready, |first| first.number > number);
            let to = if is_current || begins_later { file.bytes } else { file.bytes.min(FIRST_BYTES_MAX) };
            let from = if is_current { self.end.position } else { 0 };
            let found = self.walker.first_later(file, from..to, number);
            let found = found.map_err(|error| failed("reading the journal in", self.dir, error))?;
            let Some((position, group)) = found else { continue };
            let nearer = |nearest: &LaterGroup| group.header.number.get() < nearest.group.header.number.get();
            if nearest.as_ref().is_none_or(nearer) {
                nearest = Some(LaterGroup { file: file.clone(), position, group });
            }
        }
        Ok(nearest)
    }

    /// Goes on at a group behind a gap.
    fn skip_to(&mut self, later: LaterGroup) -> Group {
        let LaterGroup { mut file, position, group } = later;
        let chain = Chain {
            number: group.header.number.get(),
            previous_checksum: group.header.previous_checksum.get(),
            incarnation: group.header.incarnation.get(),
        };
        if self.current.as_ref().is_some_and(|current| current.number == file.number) {
            self.end.position = position;
        } else {
            // It began with a group that is lost.
            file.first = file.first.filter(|_| position == 0).or(Some(FirstGroup {
                number: self.end.chain.number,
                previous_checksum: self.end.chain.previous_checksum,
                ..FirstGroup::new(&group.header)
            }));
            self.enter(file, position);
        }
        self.end.chain = chain;
        group
    }

    /// The newest groups are lost: the next one has a number that none of them had.
    fn end_after_gap(mut self) -> ReplayEnd {
        self.end.chain.number = self.counted.group.max(self.end.chain.number) + 1;
        self.end.item_next = self.end.item_next.max(self.counted.item);
        self.end
    }
}

struct LaterGroup {
    file: FoundFile,
    position: u64,
    group: Group,
}

/// The partitions of all groups from `number` up to this one, where it names them.
fn named_since(group: &Group, number: u64) -> Option<Vec<LogId>> {
    let first = entries(group)?.into_iter().next()?;
    let since = (first.kind == EntryKind::Touched).then_some(first.header.value.get())?;
    touched::logs_since(first.payload, since, number)
}

fn worst(here: Found, next: Found) -> Found {
    match (here, next) {
        (Found::Unreadable, _) | (_, Found::Unreadable) => Found::Unreadable,
        (Found::Newer, _) | (_, Found::Newer) => Found::Newer,
        (Found::Short, _) | (_, Found::Short) => Found::Short,
        (Found::HeaderOnly, _) | (_, Found::HeaderOnly) => Found::HeaderOnly,
        (Found::Nothing, Found::Nothing) => Found::Nothing,
    }
}
