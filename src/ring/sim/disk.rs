//! Disk: files and directories with a live and a durable side.
//!
//! Owns:     what a running process sees (live), what a power cut leaves for certain (durable), and
//!           in between the changes that completed but weren't flushed, in order.
//! Promises: the harsher plausible answer. Unflushed sectors survive a cut each by its own coin,
//!           torn at 512 bytes or 4 KiB; so does every unflushed creation, removal, truncation and
//!           growth, independently of the data.
//! Never:    reads a clock or orders operations: the world executes them when their time comes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};
use std::rc::Rc;

use super::image::{Image, PAGE_BYTES, page_of};
use crate::base::random::Random;
use crate::ring::{DirEntry, IoError, OpenMode};

/// Number of a file or directory; a name that is removed and made again is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Inode(u64);

const ROOT: Inode = Inode(0);

/// Orders changes against flushes: a flush covers the changes numbered up to its mark.
pub(super) type Mark = u64;

#[derive(Clone)]
enum Node {
    File(FileNode),
    Dir(DirNode),
}

#[derive(Clone, Default)]
struct FileNode {
    live: Image,
    durable: Image,
    /// Changes since `durable`, oldest first; the first one is never durable (it would be folded).
    changes: Vec<Change>,
    allocated_pages: BTreeSet<u64>,
    /// Pages that the device can't read.
    bad_pages: BTreeSet<u64>,
}

#[derive(Clone)]
struct Change {
    mark: Mark,
    kind: ChangeKind,
    state: ChangeState,
}

#[derive(Clone)]
enum ChangeKind {
    Write { position: u64, data: Rc<[u8]> },
    Truncate { bytes: u64 },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ChangeState {
    Pending,
    Durable,
    /// Covered by a failed flush: no later flush makes it durable.
    Abandoned,
}

#[derive(Clone, Default)]
struct DirNode {
    live: BTreeMap<String, Inode>,
    durable: BTreeMap<String, Inode>,
    changes: Vec<EntryChange>,
}

#[derive(Clone)]
struct EntryChange {
    mark: Mark,
    name: String,
    /// None: removed.
    inode: Option<Inode>,
    abandoned: bool,
}

#[derive(Clone)]
pub(super) struct Disk {
    nodes: BTreeMap<Inode, Node>,
    inodes_count: u64,
    marks_count: Mark,
}

impl Disk {
    pub(super) fn new() -> Self {
        Self {
            nodes: BTreeMap::from([(ROOT, Node::Dir(DirNode::default()))]),
            inodes_count: 1,
            marks_count: 0,
        }
    }

    /// Covers every change so far.
    pub(super) fn mark(&self) -> Mark {
        self.marks_count
    }

    fn next_mark(&mut self) -> Mark {
        self.marks_count += 1;
        self.marks_count
    }

    // ---- Names -------------------------------------------------------------------------------

    fn find(&self, path: &Path) -> Result<Inode, IoError> {
        let mut inode = ROOT;
        for name in names(path) {
            inode = *self.dir(inode)?.live.get(&name).ok_or(IoError::NotFound)?;
        }
        Ok(inode)
    }

    fn find_parent(&self, path: &Path) -> Result<(Inode, String), IoError> {
        let mut names = names(path);
        let name = names.pop().ok_or(IoError::Os(libc::EINVAL))?;
        let mut inode = ROOT;
        for name in names {
            inode = *self.dir(inode)?.live.get(&name).ok_or(IoError::NotFound)?;
        }
        self.dir(inode)?;
        Ok((inode, name))
    }

    fn dir(&self, inode: Inode) -> Result<&DirNode, IoError> {
        match self.nodes.get(&inode) {
            Some(Node::Dir(dir)) => Ok(dir),
            Some(Node::File(_)) => Err(IoError::Os(libc::ENOTDIR)),
            None => Err(IoError::NotFound),
        }
    }

    pub(super) fn has(&self, inode: Inode) -> bool {
        self.nodes.contains_key(&inode)
    }

    fn file(&self, inode: Inode) -> &FileNode {
        match self.nodes.get(&inode) {
            Some(Node::File(file)) => file,
            _ => unreachable!("open files are files and are kept"),
        }
    }

    fn file_mut(&mut self, inode: Inode) -> &mut FileNode {
        match self.nodes.get_mut(&inode) {
            Some(Node::File(file)) => file,
            _ => unreachable!("open files are files and are kept"),
        }
    }

    fn change_entry(&mut self, dir: Inode, name: String, inode: Option<Inode>) {
        let mark = self.next_mark();
        let Some(Node::Dir(dir)) = self.nodes.get_mut(&dir) else {
            unreachable!("the caller looked the directory up")
        };
        match inode {
            Some(inode) => dir.live.insert(name.clone(), inode),
            None => dir.live.remove(&name),
        };
        dir.changes.push(EntryChange { mark, name, inode, abandoned: false });
    }

    fn add(&mut self, dir: Inode, name: String, node: Node) -> Inode {
        let inode = Inode(self.inodes_count);
        self.inodes_count += 1;
        self.nodes.insert(inode, node);
        self.change_entry(dir, name, Some(inode));
        inode
    }

    pub(super) fn open(&mut self, path: &Path, mode: OpenMode) -> Result<Inode, IoError> {
        let (dir, name) = self.find_parent(path)?;
        let found = self.dir(dir)?.live.get(&name).copied();
        match (mode, found) {
            (OpenMode::CreateNew, Some(_)) => Err(IoError::Exists),
            (OpenMode::CreateNew, None) => Ok(self.add(dir, name, Node::File(FileNode::default()))),
            (_, None) => Err(IoError::NotFound),
            (_, Some(inode)) => match self.nodes.get(&inode) {
                Some(Node::File(_)) => Ok(inode),
                _ => Err(IoError::Os(libc::EISDIR)),
            },
        }
    }

    pub(super) fn make_dir(&mut self, path: &Path) -> Result<(), IoError> {
        if names(path).is_empty() {
            return Err(IoError::Exists);
        }
        let (dir, name) = self.find_parent(path)?;
        if self.dir(dir)?.live.contains_key(&name) {
            return Err(IoError::Exists);
        }
        self.add(dir, name, Node::Dir(DirNode::default()));
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> Result<(), IoError> {
        let (dir, name) = self.find_parent(path)?;
        let inode = *self.dir(dir)?.live.get(&name).ok_or(IoError::NotFound)?;
        if matches!(self.nodes.get(&inode), Some(Node::Dir(_))) {
            return Err(IoError::Os(libc::EISDIR));
        }
        self.change_entry(dir, name, None);
        Ok(())
    }

    pub(super) fn remove_dir(&mut self, path: &Path) -> Result<(), IoError> {
        let (dir, name) = self.find_parent(path)?;
        let inode = *self.dir(dir)?.live.get(&name).ok_or(IoError::NotFound)?;
        if !self.dir(inode)?.live.is_empty() {
            return Err(IoError::Os(libc::ENOTEMPTY));
        }
        self.change_entry(dir, name, None);
        Ok(())
    }

    pub(super) fn list_dir(&self, path: &Path) -> Result<Vec<DirEntry>, IoError> {
        let entry = |(name, inode): (&String, &Inode)| match self.nodes.get(inode) {
            Some(Node::File(file)) => DirEntry { name: name.clone(), is_dir: false, bytes: file.live.bytes },
            _ => DirEntry { name: name.clone(), is_dir: true, bytes: 0 },
        };
        Ok(self.dir(self.find(path)?)?.live.iter().map(entry).collect())
    }

    /// Every file's path, in order.
    pub(super) fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        self.collect_files(ROOT, "", &mut files);
        files
    }

    fn collect_files(&self, dir: Inode, prefix: &str, files: &mut Vec<String>) {
        let Ok(dir) = self.dir(dir) else { return };
        for (name, inode) in &dir.live {
            let path = format!("{prefix}/{name}");
            match self.nodes.get(inode) {
                Some(Node::File(_)) => files.push(path),
                _ => self.collect_files(*inode, &path, files),
            }
        }
    }

    /// The path of a file; empty where it has none any more.
    pub(super) fn path_of(&self, inode: Inode) -> String {
        let is_it = |path: &String| self.find(Path::new(path)).is_ok_and(|found| found == inode);
        self.files().into_iter().find(is_it).unwrap_or_default()
    }

    /// Everything below a directory, and the directory; nothing where it is absent.
    pub(super) fn inodes_below(&self, dir: &Path) -> BTreeSet<Inode> {
        let mut below = BTreeSet::new();
        if let Ok(inode) = self.find(dir) {
            self.reach(inode, &|dir| dir.live.values().copied().collect(), &mut below);
        }
        below
    }

    // ---- Bytes -------------------------------------------------------------------------------

    /// Returns the count of bytes before the file's end.
    pub(super) fn read(&self, inode: Inode, position: u64, data: &mut [u8]) -> usize {
        self.file(inode).live.read(position, data)
    }

    pub(super) fn write(&mut self, inode: Inode, position: u64, data: Rc<[u8]>, durable: bool) {
        let mark = self.next_mark();
        let file = self.file_mut(inode);
        file.live.write(position, &data);
        file.live.bytes = file.live.bytes.max(position + data.len() as u64);
        file.allocate(position, data.len() as u64);
        let state = if durable { ChangeState::Durable } else { ChangeState::Pending };
        file.changes.push(Change { mark, kind: ChangeKind::Write { position, data }, state });
        file.fold();
    }

    pub(super) fn truncate(&mut self, inode: Inode, bytes: u64) {
        let mark = self.next_mark();
        let file = self.file_mut(inode);
        file.live.resize(bytes);
        let (last, within) = page_of(bytes);
        file.allocated_pages.split_off(&(last + u64::from(within > 0)));
        file.changes.push(Change { mark, kind: ChangeKind::Truncate { bytes }, state: ChangeState::Pending });
    }

    /// The file grows to the end of what it takes.
    pub(super) fn allocate(&mut self, inode: Inode, from: u64, bytes: u64) {
        let mark = self.next_mark();
        let file = self.file_mut(inode);
        file.allocate(from, bytes);
        file.live.bytes = file.live.bytes.max(from + bytes);
        let kind = ChangeKind::Write { position: from + bytes, data: Rc::new([]) };
        file.changes.push(Change { mark, kind, state: ChangeState::Pending });
    }

    /// Pages the file would newly take for this range.
    pub(super) fn growth_bytes(&self, inode: Inode, from: u64, bytes: u64) -> u64 {
        let pages = page_of(from).0..page_of(from + bytes - 1).0 + 1;
        let file = self.file(inode);
        pages.filter(|page| !file.allocated_pages.contains(page)).count() as u64 * PAGE_BYTES as u64
    }

    pub(super) fn used_bytes(&self, open: &BTreeSet<Inode>) -> u64 {
        let mut kept = BTreeSet::new();
        self.reach(ROOT, &|dir| dir.live.values().copied().collect(), &mut kept);
        kept.extend(open);
        let pages = |inode: &Inode| match self.nodes.get(inode) {
            Some(Node::File(file)) => file.allocated_pages.len() as u64,
            _ => 1,
        };
        kept.iter().map(pages).sum::<u64>() * PAGE_BYTES as u64
    }

    pub(super) fn flush(&mut self, inode: Inode, mark: Mark, failed: bool) {
        let file = self.file_mut(inode);
        for change in &mut file.changes {
            if change.mark <= mark && change.state == ChangeState::Pending {
                change.state = if failed { ChangeState::Abandoned } else { ChangeState::Durable };
            }
        }
        file.fold();
    }

    pub(super) fn flush_dir(
        &mut self,
        path: &Path,
        mark: Mark,
        failed: bool,
        open: &BTreeSet<Inode>,
    ) -> Result<(), IoError> {
        let inode = self.find(path)?;
        let Some(Node::Dir(dir)) = self.nodes.get_mut(&inode) else {
            return Err(IoError::Os(libc::ENOTDIR));
        };
        for mut change in std::mem::take(&mut dir.changes) {
            if change.mark > mark || change.abandoned || failed {
                change.abandoned |= failed && change.mark <= mark;
                dir.changes.push(change);
            } else {
                // What became of the name before, if its flush failed, is overwritten for good.
                dir.changes.retain(|before| before.name != change.name);
                dir.make_durable(change);
            }
        }
        self.forget_unreachable(open);
        Ok(())
    }

    // ---- Ends of a process or of the power ---------------------------------------------------

    /// What the disk holds when power comes back: the durable side and a seeded subset of the rest.
    pub(super) fn power_cut(&mut self, random: &mut Random) {
        let unit_bytes = if random.chance(1, 2) { 512 } else { PAGE_BYTES };
        for node in self.nodes.values_mut() {
            match node {
                Node::File(file) => file.power_cut(unit_bytes, random),
                Node::Dir(dir) => dir.power_cut(random),
            }
        }
        self.forget_unreachable(&BTreeSet::new());
    }

    /// Frees what no name and no open file leads to, on either side.
    pub(super) fn forget_unreachable(&mut self, open: &BTreeSet<Inode>) {
        let entries = |dir: &DirNode| {
            let changed = dir.changes.iter().filter_map(|change| change.inode);
            dir.live.values().chain(dir.durable.values()).copied().chain(changed).collect()
        };
        let mut kept = open.clone();
        self.reach(ROOT, &entries, &mut kept);
        self.nodes.retain(|inode, _| kept.contains(inode));
    }

    fn reach(&self, inode: Inode, entries: &dyn Fn(&DirNode) -> Vec<Inode>, kept: &mut BTreeSet<Inode>) {
        kept.insert(inode);
        if let Some(Node::Dir(dir)) = self.nodes.get(&inode) {
            for entry in entries(dir) {
                self.reach(entry, entries, kept);
            }
        }
    }

    // ---- For tests ---------------------------------------------------------------------------

    pub(super) fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let inode = self.find(path).ok()?;
        match self.nodes.get(&inode)? {
            Node::File(file) => Some(file.live.to_vec()),
            Node::Dir(_) => None,
        }
    }

    /// Changes a byte at rest, on both sides.
    pub(super) fn corrupt(&mut self, path: &Path, position: u64, xor: u8) {
        let inode = self.find(path).expect("a test corrupts a file that is there");
        let file = self.file_mut(inode);
        let mut byte = [0];
        assert_eq!(file.live.read(position, &mut byte), 1, "a test corrupts a byte before the end");
        byte[0] ^= xor;
        file.live.write(position, &byte);
        if position < file.durable.bytes {
            file.durable.read(position, &mut byte);
            byte[0] ^= xor;
            file.durable.write(position, &byte);
        }
        for change in &mut file.changes {
            if let ChangeKind::Write { position: start, data } = &mut change.kind
                && (*start..*start + data.len() as u64).contains(&position)
            {
                Rc::make_mut(data)[(position - *start) as usize] ^= xor;
            }
        }
    }

    /// Cuts a file at rest, on both sides. Precondition: nothing of it waits for a flush.
    pub(super) fn cut_file(&mut self, path: &Path, bytes: u64) {
        let inode = self.find(path).expect("a test cuts a file that is there");
        let file = self.file_mut(inode);
        file.changes.clear();
        file.live.resize(bytes);
        file.durable = file.live.clone();
    }

    /// The device can't read the page of a file any more.
    pub(super) fn break_page(&mut self, path: &Path, position: u64) {
        let inode = self.find(path).expect("a test breaks a file that is there");
        self.file_mut(inode).bad_pages.insert(page_of(position).0);
    }

    pub(super) fn is_readable(&self, inode: Inode, position: u64, bytes: u64) -> bool {
        let pages = page_of(position).0..=page_of(position + bytes.max(1) - 1).0;
        self.file(inode).bad_pages.range(pages).next().is_none()
    }

    /// Makes a directory and its parents, durable at once.
    pub(super) fn make_dirs(&mut self, path: &Path) {
        let mut inode = ROOT;
        for name in names(path) {
            let found = self.dir(inode).expect("the path leads through directories").live.get(&name);
            let next = match found {
                Some(next) => *next,
                None => self.add(inode, name, Node::Dir(DirNode::default())),
            };
            let Some(Node::Dir(dir)) = self.nodes.get_mut(&inode) else { unreachable!("looked up above") };
            for change in std::mem::take(&mut dir.changes) {
                dir.make_durable(change);
            }
            inode = next;
        }
    }
}

impl FileNode {
    fn allocate(&mut self, from: u64, bytes: u64) {
        self.allocated_pages.extend(page_of(from).0..=page_of(from + bytes - 1).0);
    }

    /// Moves the durable changes at the front into the durable image.
    fn fold(&mut self) {
        let count = self.changes.iter().take_while(|change| change.state == ChangeState::Durable).count();
        for change in self.changes.drain(..count) {
            change.apply(&mut self.durable);
        }
    }

    fn power_cut(&mut self, unit_bytes: usize, random: &mut Random) {
        let mut image = std::mem::take(&mut self.durable);
        for change in std::mem::take(&mut self.changes) {
            if change.state == ChangeState::Durable {
                change.apply(&mut image);
            } else {
                change.survive_in_part(&mut image, unit_bytes, random);
            }
        }
        image.trim();
        self.allocated_pages = image.page_numbers().collect();
        self.durable = image.clone();
        self.live = image;
    }
}

impl Change {
    fn apply(&self, image: &mut Image) {
        match &self.kind {
            ChangeKind::Write { position, data } => {
                image.write(*position, data);
                image.bytes = image.bytes.max(position + data.len() as u64);
            }
            ChangeKind::Truncate { bytes } => image.resize(*bytes),
        }
    }

    fn survive_in_part(&self, image: &mut Image, unit_bytes: usize, random: &mut Random) {
        match &self.kind {
            ChangeKind::Write { position, data } => {
                for (index, unit) in data.chunks(unit_bytes).enumerate() {
                    if random.chance(1, 2) {
                        image.write(position + (index * unit_bytes) as u64, unit);
                    }
                }
                if random.chance(1, 2) {
                    image.bytes = image.bytes.max(position + data.len() as u64);
                }
            }
            ChangeKind::Truncate { bytes } => {
                if random.chance(1, 2) {
                    image.resize(*bytes);
                }
            }
        }
    }
}

impl DirNode {
    fn make_durable(&mut self, change: EntryChange) {
        match change.inode {
            Some(inode) => self.durable.insert(change.name, inode),
            None => self.durable.remove(&change.name),
        };
    }

    fn power_cut(&mut self, random: &mut Random) {
        for change in std::mem::take(&mut self.changes) {
            if random.chance(1, 2) {
                self.make_durable(change);
            }
        }
        self.live = self.durable.clone();
    }
}

fn names(path: &Path) -> Vec<String> {
    let name = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        Component::RootDir | Component::CurDir => None,
        Component::ParentDir | Component::Prefix(_) => panic!("{} isn't a plain path", path.display()),
    };
    path.components().filter_map(name).collect()
}
