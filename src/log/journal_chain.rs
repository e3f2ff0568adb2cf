//! Journal chain: the journal's files, and the groups that follow each other through them.
//!
//! Promises: decides where the journal ends by the rules of `verdict`, the same for recovery and
//!           verify; reads, and flushes before it reads where the lane is to be served.

use std::path::Path;

use super::disk::{Disk, failed};
use super::format::{ImageHeader, VERSION};
use super::options::LaneError;
use super::prewrite;
use super::redo::Contradiction;
use super::replay::{Chain, Entry, FirstGroup, FoundFile, Group, Walker, entries, item_end};
use super::verdict::{Found, Verdict, judge};
use crate::ring::{IoError, OpenMode};

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
            disk.flush(file).map_err(|error| failed("flush of", &path, error))?;
        }
        let mut found = FoundFile { number, file, bytes: entry.bytes, first: None, ready: false };
        let header =
            Walker::new(disk, *log_id).header(&found, 0).map_err(|error| failed("reading", &path, error))?;
        match header {
            Ok(header) => {
                found.ready = true;
                found.first = Some(FirstGroup {
                    number: header.number.get(),
                    incarnation: header.incarnation.get(),
                    previous_checksum: header.previous_checksum.get(),
                });
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

/// Walks the groups from the image's first one on.
pub(super) fn replay(
    disk: &mut Disk<'_>,
    dir: &Path,
    image: &ImageHeader,
    files: &[FoundFile],
    mut apply: impl FnMut(&Entry<'_>, u64) -> Result<(), Contradiction>,
) -> Result<ReplayEnd, LaneError> {
    let mut walker = Walker::new(disk, image.log_id);
    let mut end = ReplayEnd {
        chain: Chain {
            number: image.replay_number.get(),
            previous_checksum: image.replay_previous.get(),
            incarnation: 0,
        },
        used: Vec::new(),
        position: 0,
        item_next: image.item_next.get(),
        groups_count: 0,
        bytes: 0,
        torn: None,
    };
    let mut current: Option<FoundFile> = None;
    loop {
        let here = match &current {
            Some(file) if end.position < file.bytes => walker.group(file, end.position, end.chain),
            _ => Err(Found::Nothing),
        };
        let group = match here {
            Ok(group) => group,
            Err(found) => {
                // The file may be full: does another one go on?
                let next = next_file(&mut walker, files, &end);
                match next {
                    Some((file, Ok(group))) => {
                        end.position = 0;
                        end.used.push(file.clone());
                        current = Some(file);
                        group
                    }
                    Some((_, Err(worse))) => {
                        return end_of_journal(
                            &mut walker,
                            dir,
                            image,
                            files,
                            current,
                            worst(found, worse),
                            end,
                        );
                    }
                    None => return end_of_journal(&mut walker, dir, image, files, current, found, end),
                }
            }
        };
        let incarnation = current.as_ref().and_then(|file| file.first).map_or(0, |first| first.incarnation);
        let damaged = |what: String| LaneError::Damaged { what: format!("{}: {what}", dir.display()) };
        let number = group.header.number.get();
        let malformed = || damaged(format!("group {number} is intact and malformed"));
        for entry in entries(&group).ok_or_else(malformed)? {
            apply(&entry, incarnation).map_err(|Contradiction(what)| damaged(what))?;
        }
        end.chain = Chain {
            number: number + 1,
            previous_checksum: group.header.header_checksum.get(),
            incarnation: group.header.incarnation.get(),
        };
        end.item_next = item_end(&group).ok_or_else(malformed)?;
        end.position += group.size_bytes();
        end.bytes += group.size_bytes();
        end.groups_count += 1;
    }
}

/// The file whose first group follows the chain, and that group or what is there instead.
fn next_file(
    walker: &mut Walker<'_, '_>,
    files: &[FoundFile],
    end: &ReplayEnd,
) -> Option<(FoundFile, Result<Group, Found>)> {
    let follows = |first: &FirstGroup| {
        first.number == end.chain.number && first.previous_checksum == end.chain.previous_checksum
    };
    let file = files.iter().find(|file| file.first.as_ref().is_some_and(follows))?;
    let group = walker.group(file, 0, end.chain);
    Some((file.clone(), group))
}

fn worst(here: Found, next: Found) -> Found {
    match (here, next) {
        (Found::Unreadable, _) | (_, Found::Unreadable) => Found::Unreadable,
        (Found::Newer, _) | (_, Found::Newer) => Found::Newer,
        (Found::HeaderOnly, _) | (_, Found::HeaderOnly) => Found::HeaderOnly,
        (Found::Nothing, Found::Nothing) => Found::Nothing,
    }
}

/// No group follows: is it the end, a torn group, or damage?
fn end_of_journal(
    walker: &mut Walker<'_, '_>,
    dir: &Path,
    image: &ImageHeader,
    files: &[FoundFile],
    current: Option<FoundFile>,
    found: Found,
    mut end: ReplayEnd,
) -> Result<ReplayEnd, LaneError> {
    let number = end.chain.number;
    let counted = number <= image.durable_number.get();
    let unreadable = |error| failed("reading the journal in", dir, error);
    let mut later = false;
    for file in files {
        let from = match &current {
            Some(current) if current.number == file.number => end.position,
            _ => 0,
        };
        // Of the other files the first group tells: a later one there begins a file.
        let scanned = if from > 0 || current.as_ref().is_some_and(|current| current.number == file.number) {
            walker.any_later(file, from, number).map_err(unreadable)?
        } else {
            file.first.is_some_and(|first| first.number > number)
                && walker.any_later(file, 0, number).map_err(unreadable)?
        };
        later |= scanned;
    }
    let place = match &current {
        Some(file) => format!("{} at {}", prewrite::file_name(file.number), end.position),
        None => "no file".to_owned(),
    };
    match judge(found, counted, later) {
        Verdict::End => Ok(end),
        Verdict::Torn => {
            end.torn = Some(place);
            Ok(end)
        }
        Verdict::Damage => {
            let why = if later { "a later group is there" } else { "the checkpoint counts it as durable" };
            let what =
                format!("{}: group {number} ({place}) is missing or changed, but {why}", dir.display());
            Err(LaneError::Damaged { what })
        }
        Verdict::ReadError => Err(unreadable(IoError::Os(5))),
        Verdict::NewerVersion => {
            Err(LaneError::NewerVersion { what: format!("{}: {place}", dir.display()), version: VERSION + 1 })
        }
    }
}
