//! Which template a leaf belongs to: the canonical closure of the set of leaves.
//!
//! A *hole* is a leaf with one word masked (or two that always change together). When enough distinct words have met in
//! a hole, the masked form is a *general*, and every leaf that it matches is below it. Generals have holes like leaves,
//! so that several variables emerge one after the other; the generals that match one leaf have a common one above them,
//! which is its root.
//!
//! Each of these rules only ever adds, and asks only *which* leaves there are. So the result is the least fixed point
//! over a set: the same in any order, after a restart from the stored leaves, and for the union of two machines' leaves.

use std::{
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
};

use hashbrown::{HashMap, HashTable};

use crate::{
    LeafId, NewLeaf, RootId, SlotKind,
    lexicon::{self, Class, ENOUGH, PLAIN_WEIGHT},
    scan::{ANY_WORD, Keyed, Masked, Piece, What},
    template::{self, Rendered},
};

/// The version of scanner and text form that ids are made of.
const FORMAT: &[u8] = b"1";
/// Leaves that a general keeps one by one; later ones are counted under the general itself.
const MEMBERS: u32 = 64;
/// Pairs of words are looked for among this many leaves that share a third of their words.
const NEIGHBOURS: usize = 256;
/// Holes are looked for in this many leading words.
const HOLES: usize = 48;

/// What a leaf takes beside its texts, and each of its pieces (its hash and its hole), as measured.
const LEAF_BYTES: usize = 400;
const PIECE_BYTES: usize = 40;

/// How many distinct words make a hole a variable, by the constant words that are left.
fn threshold(constants: usize) -> usize {
    match constants {
        0 => usize::MAX,
        1 => 24,
        2 => 12,
        3 => 6,
        _ => 3,
    }
}

/// The same, for holes that values with digits have been seen in too.
fn threshold_beside_values(constants: usize) -> usize {
    match constants {
        0 => usize::MAX,
        1 => 6,
        2 => 4,
        3 => 3,
        _ => 2,
    }
}

/// A word that was seen in a hole: its hash, and in the lowest bits its weight, which is zero for plain words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word(u64);

impl Word {
    /// Stands for "a value with digits" among the words of a hole.
    const VALUE: Self = Self(u64::MAX);
    const WEIGHT: u64 = 0x7f;

    fn new(hash: u64, weight: u16) -> Self {
        Self(hash & !Self::WEIGHT | u64::from(weight))
    }

    fn weight(self) -> usize {
        (self.0 & Self::WEIGHT) as usize
    }
}

/// Words of a hole that are remembered at most: more change nothing.
const WORDS: usize = 128;

/// What a hole has become.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hole {
    Constant,
    /// Plain words are values there.
    Words,
    /// Code-like words too.
    Codes,
}

/// For keys that are hashes already.
#[derive(Clone, Copy, Default)]
pub(crate) struct Ready(u64);

impl Hasher for Ready {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}

/// A map by hash.
pub(crate) type ByHash<V> = HashMap<u64, V, BuildHasherDefault<Ready>>;

/// Where a leaf is in the closure.
pub(crate) type Index = u32;

const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Leaf {
    new: NewLeaf,
    key: u64,
    hashes: Box<[u64]>,
    /// Positions that stand for words: the leaf is a general's own.
    own: u128,
}

#[derive(Clone, Debug)]
struct General {
    mask: u128,
    /// Those positions where code-like words are values too.
    codes: u128,
    /// A leaf that it matches, which lends it its text.
    like: Index,
    members: u32,
    /// Whether it has noted its holes.
    digs: bool,
    /// The leaf that stands for the general itself, if there is one.
    own: Index,
    root: RootId,
    /// The kind of each piece, over all leaves below it.
    kinds: Box<[SlotKind]>,
}

/// A pair of positions that change together: the distinct words of both.
#[derive(Clone, Debug, Default)]
struct Pair {
    first: Vec<u64>,
    second: Vec<u64>,
}

/// The leaves and what follows from them.
#[derive(Clone, Debug)]
pub(crate) struct Closure {
    keyed: Keyed,
    leaves: Vec<Arc<Leaf>>,
    /// The root general of each leaf, or [`NONE`].
    roots: Vec<u32>,
    /// By id. Their order is not known to who writes lines: it hangs on the secret.
    by_id: HashTable<Index>,
    by_key: ByHash<Index>,
    generals: Vec<General>,
    general_by_key: ByHash<u32>,
    /// The masks that generals have, by program and number of pieces.
    patterns: ByHash<Vec<u128>>,
    /// Generals by program and number of pieces.
    kin: ByHash<Vec<u32>>,
    /// Leaves by program and number of pieces.
    alike: ByHash<Vec<Index>>,
    /// Holes with one word.
    single: ByHash<Word>,
    /// Holes with more.
    holes: ByHash<Vec<Word>>,
    /// The last leaf with such a third of words, and for each leaf the ones before it with the same thirds.
    thirds: ByHash<Index>,
    before: Vec<[Index; 3]>,
    pairs: ByHash<Pair>,
    /// Leaves whose root changed since the last [`Closure::take_moved`]; some more than once.
    moved: Vec<Index>,
    /// Leaves that were not compared with all that share a third of their words.
    unpaired: u64,
    /// About how much memory the leaves take, with what follows from them.
    bytes: usize,
}

/// The pieces of a leaf or line, for making holes.
struct Form<'m> {
    program: u64,
    masked: &'m Masked,
    source: &'m [u8],
    classes: Vec<Option<Class>>,
    /// Where constant words are.
    words: u128,
}

/// The class of a piece when the pieces of `mask` are variables; `None` for variables.
fn class(source: &[u8], pieces: &[Piece], mask: u128, at: usize) -> Option<Class> {
    let word = |at: Option<usize>| match at.and_then(|at| Some((at, pieces.get(at)?))) {
        Some((at, piece)) if at >= 128 || mask >> at & 1 == 0 => Masked::word(source, piece),
        _ => b"",
    };
    match pieces.get(at)?.what {
        What::Var => None,
        What::Status(_) => Some(Class::Protected),
        What::Word => Some(lexicon::class(word(at.checked_sub(1)), word(Some(at)), word(Some(at + 1)))),
    }
}

impl<'m> Form<'m> {
    fn new(program: u64, masked: &'m Masked, text: &'m [u8]) -> Self {
        let source = masked.source(text);
        let pieces = &masked.pieces;
        let classes = (0..pieces.len()).map(|at| class(source, pieces, 0, at)).collect();
        let is_word = |piece: &Piece| Masked::word(source, piece).iter().any(u8::is_ascii_alphabetic);
        let words = pieces.iter().enumerate().filter(|(at, piece)| *at < 128 && is_word(piece));
        let words = words.fold(0, |mask, (at, _)| mask | 1 << at);
        Self { program, masked, source, classes, words }
    }

    fn may_vary(&self, at: usize) -> Option<Class> {
        self.classes.get(at).copied().flatten().filter(|class| *class != Class::Protected)
    }

    /// Where code-like words are.
    fn codes(&self) -> u128 {
        let codes = self.classes.iter().enumerate().filter(|(_, class)| matches!(class, Some(Class::Code(_))));
        codes.filter(|(at, _)| *at < 128).fold(0, |mask, (at, _)| mask | 1 << at)
    }

    /// The key with all positions of `mask` masked, if they may be.
    fn masked_key(&self, keyed: &Keyed, mask: u128) -> Option<u64> {
        let mut key = self.masked.key;
        for at in bits(mask) {
            key = match self.may_vary(at) {
                Some(_) => key.wrapping_add(change(keyed, &self.masked.pieces[at], at)),
                None if self.stands_for_word(keyed, at) => key,
                None => return None,
            };
        }
        Some(key)
    }

    fn stands_for_word(&self, keyed: &Keyed, at: usize) -> bool {
        let piece = self.masked.pieces.get(at);
        piece.is_some_and(|piece| piece.what == What::Var && piece.hash == keyed.placed(ANY_WORD, piece.sep_hash))
    }

    /// How many constant words are left when those of `mask` are masked.
    fn left(&self, mask: u128) -> usize {
        (self.words & !mask).count_ones() as usize
    }
}

/// What masking a piece adds to the key.
fn change(keyed: &Keyed, piece: &Piece, at: usize) -> u64 {
    keyed.at(keyed.placed(ANY_WORD, piece.sep_hash), at).wrapping_sub(keyed.at(piece.hash, at))
}

/// A general that is to be made.
struct Wanted {
    mask: u128,
    /// Positions where code-like words are values too.
    codes: u128,
    /// A leaf that it matches.
    like: Index,
    /// Whether it has holes of its own: those made of holes do, those that join others do not.
    digs: bool,
}

/// A hole: what is left, and which position of it the words are from.
fn hole(key: u64, at: usize) -> u64 {
    key.wrapping_add((at as u64 + 1).wrapping_mul(0xd6e8_feb8_6659_fd93))
}

fn bits(mut mask: u128) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let at = mask.trailing_zeros();
        mask &= mask.checked_sub(1)?;
        Some(at as usize)
    })
}

/// What the closure says about a line that it has no leaf for.
pub(crate) enum Known {
    /// It is a new leaf.
    No,
    /// A general with enough leaves of its own matches it: it counts there.
    Under(u32),
}

impl Closure {
    pub(crate) fn new(keyed: Keyed) -> Self {
        Self {
            keyed,
            leaves: Vec::new(),
            roots: Vec::new(),
            by_id: HashTable::new(),
            by_key: ByHash::default(),
            generals: Vec::new(),
            general_by_key: ByHash::default(),
            patterns: ByHash::default(),
            kin: ByHash::default(),
            alike: ByHash::default(),
            single: ByHash::default(),
            holes: ByHash::default(),
            thirds: ByHash::default(),
            before: Vec::new(),
            pairs: ByHash::default(),
            moved: Vec::new(),
            unpaired: 0,
            bytes: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.leaves.len()
    }

    pub(crate) fn keyed(&self) -> Keyed {
        self.keyed
    }

    /// The leaf with this key.
    pub(crate) fn find(&self, key: u64) -> Option<Index> {
        self.by_key.get(&key).copied()
    }

    /// The leaf with this id.
    pub(crate) fn by_id(&self, id: LeafId) -> Option<Index> {
        self.by_id.find(self.keyed.id(id), |at| self.leaves[*at as usize].new.leaf == id).copied()
    }

    pub(crate) fn leaf(&self, at: Index) -> &NewLeaf {
        &self.leaves[at as usize].new
    }

    pub(crate) fn leaves(&self) -> impl Iterator<Item = &NewLeaf> {
        self.leaves.iter().map(|leaf| &leaf.new)
    }

    /// The root of a leaf.
    pub(crate) fn root(&self, at: Index) -> RootId {
        match self.roots[at as usize] {
            NONE => self.leaves[at as usize].new.leaf.as_root(),
            general => self.generals[general as usize].root,
        }
    }

    /// The positions that are masked in a leaf's root and not in the leaf.
    pub(crate) fn root_mask(&self, at: Index) -> u128 {
        match self.roots[at as usize] {
            NONE => 0,
            general => self.generals[general as usize].mask,
        }
    }

    /// About how much memory the leaves take, with what follows from them.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The part of one leaf in [`Closure::bytes`].
    pub(crate) fn bytes_of(&self, at: Index) -> usize {
        let Leaf { new, hashes, .. } = &*self.leaves[at as usize];
        LEAF_BYTES + new.text.len() + new.example.len() + hashes.len() * PIECE_BYTES
    }

    /// How many leaves were not compared with all that they resemble.
    pub(crate) fn unpaired(&self) -> u64 {
        self.unpaired
    }

    /// Leaves whose root has changed, each once.
    pub(crate) fn take_moved(&mut self) -> Vec<Index> {
        let mut moved = std::mem::take(&mut self.moved);
        moved.sort_unstable();
        moved.dedup();
        moved
    }

    /// Whether a line without a leaf is known all the same.
    pub(crate) fn known(&self, program: u64, masked: &Masked, text: &[u8]) -> Known {
        let Some(patterns) = self.patterns.get(&shape(program, masked.pieces.len())) else { return Known::No };
        let source = masked.source(text);
        let mut best = None;
        'patterns: for mask in patterns {
            let (mut key, mut codes) = (masked.key, 0);
            for at in bits(*mask) {
                match class(source, &masked.pieces, 0, at) {
                    None | Some(Class::Protected) => continue 'patterns,
                    Some(class) => codes |= u128::from(class != Class::Plain) << at,
                }
                key = key.wrapping_add(change(&self.keyed, &masked.pieces[at], at));
            }
            if let Some(general) = self.general(key, codes) {
                best = best.max(Some((mask.count_ones(), *mask, general)));
            }
        }
        match best {
            Some((_, _, general)) if self.generals[general as usize].members >= MEMBERS => Known::Under(general),
            _ => Known::No,
        }
    }

    /// The general with this key, if it takes code-like words where `codes` says that there are some.
    fn general(&self, key: u64, codes: u128) -> Option<u32> {
        let general = *self.general_by_key.get(&key)?;
        (codes & !self.generals[general as usize].codes == 0).then_some(general)
    }

    /// The leaf that stands for a general, if there is one.
    pub(crate) fn own_leaf(&self, general: u32) -> Option<Index> {
        let own = self.generals[general as usize].own;
        (own != NONE).then_some(own)
    }

    /// The leaf that would stand for a general.
    pub(crate) fn make_own_leaf(&self, general: u32) -> NewLeaf {
        let general = &self.generals[general as usize];
        let like = &self.leaves[general.like as usize].new;
        let mut masked = Masked::new(self.keyed);
        masked.template(0, like.text.as_bytes());
        NewLeaf {
            leaf: LeafId::from_bits(general.root.bits()),
            program: like.program.clone(),
            text: template::mask_words(&masked, like.text.as_bytes(), general.mask).into(),
            example: like.example.clone(),
            first: like.first,
        }
    }

    /// All leaves, to begin anew with some of them.
    pub(crate) fn into_leaves(self) -> impl Iterator<Item = NewLeaf> {
        let leaves = self.leaves;
        leaves.into_iter().map(|leaf| Arc::try_unwrap(leaf).map_or_else(|leaf| leaf.new.clone(), |leaf| leaf.new))
    }

    /// The general above a leaf.
    pub(crate) fn general_of(&self, at: Index) -> Option<u32> {
        let root = self.roots[at as usize];
        (root != NONE).then_some(root)
    }

    /// Adds a leaf, unless it is there, and what follows from it.
    pub(crate) fn insert(&mut self, new: NewLeaf) -> Index {
        if let Some(at) = self.by_id(new.leaf) {
            return at;
        }
        let text = new.text.clone();
        let program = self.keyed.program(new.program.as_bytes());
        let mut masked = Masked::new(self.keyed);
        masked.template(program, text.as_bytes());
        let form = Form::new(program, &masked, text.as_bytes());
        let at = self.leaves.len() as Index;
        let pieces = masked.pieces.len();
        let own =
            (0..pieces.min(128)).filter(|at| form.stands_for_word(&self.keyed, *at)).fold(0, |mask, at| mask | 1 << at);
        let coarse = masked.values.iter().any(|value| value.kind == SlotKind::Text);
        self.by_key.entry(masked.key).or_insert(at);
        let hashes = masked.pieces.iter().map(|piece| piece.hash).collect();
        let id = self.keyed.id(new.leaf);
        self.leaves.push(Arc::new(Leaf { new, key: masked.key, hashes, own }));
        self.by_id.insert_unique(id, at, |at| self.keyed.id(self.leaves[*at as usize].new.leaf));
        self.bytes += self.bytes_of(at);
        self.roots.push(NONE);
        self.before.push([NONE; 3]);
        if coarse {
            return at;
        }
        if own != 0
            && let Some(general) = self.general_by_key.get(&masked.key)
        {
            self.generals[*general as usize].own = at;
        }
        let shape = shape(program, pieces);
        self.alike.entry(shape).or_default().push(at);

        let mut wanted: Vec<Wanted> = Vec::new();
        if own != 0 {
            wanted.push(Wanted { mask: own, codes: 0, like: at, digs: true });
        }
        self.join(&form, at, &mut wanted);
        self.dig(&form, 0, at, &mut wanted);
        if own == 0 {
            self.dig_pairs(program, &form, at, &mut wanted);
        }
        self.settle(at, &form);
        self.generalise(program, shape, wanted);
        at
    }

    /// The generals that match a leaf.
    fn above(&self, form: &Form<'_>) -> Vec<(u128, u32)> {
        let codes = form.codes();
        let masks = self.patterns.get(&shape(form.program, form.classes.len())).into_iter().flatten();
        masks
            .filter_map(|mask| Some((*mask, self.general(form.masked_key(&self.keyed, *mask)?, codes & mask)?)))
            .collect()
    }

    /// The generals that match a leaf have a common one.
    ///
    /// Only the union of all of them is made, never that of each two, which could be as many as there are subsets. Those
    /// that were made before all of them were known make no difference: the last one matches whatever they match, and
    /// they have no holes.
    fn join(&self, form: &Form<'_>, at: Index, wanted: &mut Vec<Wanted>) {
        let above = self.above(form);
        let union = above.iter().fold(0, |union, (mask, _)| union | mask);
        if union != 0 && above.iter().all(|(mask, _)| *mask != union) {
            wanted.push(Wanted { mask: union, codes: 0, like: at, digs: false });
        }
    }

    /// Notes the holes of a leaf (`mask` zero) or general, and which of them are variables now.
    fn dig(&mut self, form: &Form<'_>, mask: u128, like: Index, wanted: &mut Vec<Wanted>) {
        let Some(key) = form.masked_key(&self.keyed, mask) else { return };
        for (at, piece) in form.masked.pieces.iter().enumerate().take(HOLES) {
            if mask >> at & 1 == 1 {
                continue;
            }
            let wider = mask | 1 << at;
            let word = match class(form.source, &form.masked.pieces, mask, at) {
                Some(Class::Code(weight)) => Word::new(piece.hash, weight),
                Some(Class::Plain) => Word::new(piece.hash, 0),
                None if piece.what == What::Var && !form.stands_for_word(&self.keyed, at) => Word::VALUE,
                _ => continue,
            };
            let general = key.wrapping_add(change(&self.keyed, piece, at));
            match self.note(hole(general, at), word, form.left(wider)) {
                Hole::Constant => {}
                _ if word == Word::VALUE => wanted.extend(self.like(general, wider, form).map(|like| Wanted {
                    mask: wider,
                    codes: 0,
                    like,
                    digs: true,
                })),
                Hole::Words if word.weight() > 0 => {}
                Hole::Words => wanted.push(Wanted { mask: wider, codes: 0, like, digs: true }),
                Hole::Codes => wanted.push(Wanted { mask: wider, codes: 1 << at, like, digs: true }),
            }
        }
    }

    /// A leaf that the general with this key matches but for code-like words; none when the general is there already and has
    /// holes.
    fn like(&self, key: u64, mask: u128, form: &Form<'_>) -> Option<Index> {
        if self.general_by_key.get(&key).is_some_and(|general| self.generals[*general as usize].digs) {
            return None;
        }
        let pieces = &form.masked.pieces;
        self.alike.get(&shape(form.program, pieces.len()))?.iter().copied().find(|at| {
            let leaf = &self.leaves[*at as usize];
            let same =
                |(position, piece): (usize, &Piece)| mask >> position & 1 == 1 || leaf.hashes[position] == piece.hash;
            if leaf.hashes.len() != pieces.len() || !pieces.iter().enumerate().all(same) {
                return false;
            }
            let mut masked = Masked::new(self.keyed);
            masked.template(form.program, leaf.new.text.as_bytes());
            Form::new(form.program, &masked, leaf.new.text.as_bytes()).masked_key(&self.keyed, mask) == Some(key)
        })
    }

    /// Adds a word to a hole that leaves so many constant words. Returns what the hole is now.
    fn note(&mut self, hole: u64, word: Word, left: usize) -> Hole {
        if left == 0 {
            return Hole::Constant;
        }
        let Some(words) = self.holes.get_mut(&hole) else {
            let first = *self.single.entry(hole).or_insert(word);
            if first == word {
                return Hole::Constant;
            }
            self.single.remove(&hole);
            self.holes.insert(hole, vec![first, word]);
            return weigh(&[first, word], left);
        };
        if words.len() < WORDS && !words.contains(&word) {
            words.push(word);
        }
        weigh(words, left)
    }

    /// Two words that always change together.
    fn dig_pairs(&mut self, program: u64, form: &Form<'_>, at: Index, wanted: &mut Vec<Wanted>) {
        let pieces = &form.masked.pieces;
        let (len, third) = (pieces.len(), pieces.len().div_ceil(3));
        if !(3..=HOLES).contains(&len) {
            return;
        }
        let mut all = true;
        for (part, from) in (0..len).step_by(third).enumerate() {
            let mut key = program ^ (from as u64) << 32 ^ len as u64;
            for (at, piece) in pieces.iter().enumerate().take(from + third).skip(from) {
                key = key.wrapping_add(self.keyed.at(piece.hash, at));
            }
            let mut other = self.thirds.insert(key, at).unwrap_or(NONE);
            self.before[at as usize][part] = other;
            for _ in 0..NEIGHBOURS {
                if other == NONE {
                    break;
                }
                self.compare(form, at, other, wanted);
                other = self.before[other as usize][part];
            }
            all &= other == NONE;
        }
        self.unpaired += u64::from(!all);
    }

    fn compare(&mut self, form: &Form<'_>, at: Index, other: Index, wanted: &mut Vec<Wanted>) {
        let theirs = self.leaves[other as usize].clone();
        let pieces = &form.masked.pieces;
        if theirs.hashes.len() != pieces.len() || theirs.own != 0 {
            return;
        }
        let mut different = pieces.iter().zip(&theirs.hashes).enumerate().filter(|(_, (a, b))| a.hash != **b);
        let (Some((first, _)), Some((second, _)), None) = (different.next(), different.next(), different.next()) else {
            return;
        };
        let mask = 1 << first | 1 << second;
        if form.may_vary(first) != Some(Class::Plain) || form.may_vary(second) != Some(Class::Plain) {
            return;
        }
        let Some(key) = form.masked_key(&self.keyed, mask) else { return };
        // Whether the other's two words are plain too, and stand behind the same separators, its own form must tell.
        let mut masked = Masked::new(self.keyed);
        masked.template(form.program, theirs.new.text.as_bytes());
        let other = Form::new(form.program, &masked, theirs.new.text.as_bytes());
        if other.masked_key(&self.keyed, mask) != Some(key) || other.codes() & mask != 0 {
            return;
        }
        let needed = threshold(form.left(mask)).saturating_add(1);
        let pair = self.pairs.entry(key).or_default();
        for (words, position) in [(&mut pair.first, first), (&mut pair.second, second)] {
            for word in [pieces[position].hash, theirs.hashes[position]] {
                if words.len() < needed && !words.contains(&word) {
                    words.push(word);
                }
            }
        }
        if pair.first.len() >= needed && pair.second.len() >= needed {
            wanted.push(Wanted { mask, codes: 0, like: at, digs: true });
        }
    }

    /// Makes the generals that are wanted, and those that follow from them.
    fn generalise(&mut self, program: u64, shape: u64, mut wanted: Vec<Wanted>) {
        while let Some(Wanted { mask, codes, like, digs }) = wanted.pop() {
            let text = self.leaves[like as usize].new.text.clone();
            let mut masked = Masked::new(self.keyed);
            masked.template(program, text.as_bytes());
            let form = Form::new(program, &masked, text.as_bytes());
            let Some(key) = form.masked_key(&self.keyed, mask) else { continue };
            let hashes: Vec<u64> = masked.pieces.iter().map(|piece| piece.hash).collect();
            let (general, is_new) = match self.general_by_key.get(&key).copied() {
                Some(known) => (known, false),
                None => (self.add_general(&form, key, mask, like, &text, shape), true),
            };
            let known = &mut self.generals[general as usize];
            let dig = digs && !known.digs;
            known.digs |= digs;
            if !is_new && !dig && codes & !known.codes == 0 {
                continue;
            }
            let below = if is_new { self.codes_below(program, shape, key, mask, &hashes) } else { 0 };
            self.generals[general as usize].codes |= codes | below;
            let codes = self.generals[general as usize].codes;
            // What is a value here is one in wider generals too.
            for wider in
                self.patterns.get(&shape).into_iter().flatten().filter(|wider| *wider & mask == mask && **wider != mask)
            {
                if form.masked_key(&self.keyed, *wider).is_some_and(|key| self.general_by_key.contains_key(&key)) {
                    wanted.push(Wanted { mask: *wider, codes, like, digs: false });
                }
            }
            self.adopt(program, shape, general, key, &hashes, &mut wanted);
            if dig {
                self.dig(&form, mask, like, &mut wanted);
            }
        }
    }

    fn add_general(&mut self, form: &Form<'_>, key: u64, mask: u128, like: Index, text: &str, shape: u64) -> u32 {
        let rendered = template::render(form.masked, text.as_bytes(), mask, &[]);
        let root = RootId::from_bits(leaf_id(&self.leaves[like as usize].new.program, &rendered).bits());
        let general = self.generals.len() as u32;
        self.generals.push(General {
            mask,
            codes: 0,
            like,
            members: 0,
            digs: false,
            own: NONE,
            root,
            kinds: Box::default(),
        });
        self.general_by_key.insert(key, general);
        self.kin.entry(shape).or_default().push(general);
        let patterns = self.patterns.entry(shape).or_default();
        if !patterns.contains(&mask) {
            patterns.push(mask);
        }
        general
    }

    /// Where code-like words are values in narrower generals.
    fn codes_below(&self, program: u64, shape: u64, key: u64, mask: u128, hashes: &[u64]) -> u128 {
        let mut codes = 0;
        for general in self.kin.get(&shape).into_iter().flatten() {
            let general = &self.generals[*general as usize];
            let leaf = &self.leaves[general.like as usize];
            let same = |position: usize| mask >> position & 1 == 1 || leaf.hashes[position] == hashes[position];
            if general.codes & !codes == 0 || general.mask & !mask != 0 || leaf.hashes.len() != hashes.len() {
                continue;
            }
            if !(0..hashes.len()).all(same) {
                continue;
            }
            let mut masked = Masked::new(self.keyed);
            masked.template(program, leaf.new.text.as_bytes());
            if Form::new(program, &masked, leaf.new.text.as_bytes()).masked_key(&self.keyed, mask) == Some(key) {
                codes |= general.codes;
            }
        }
        codes
    }

    /// Finds the leaves that a general matches.
    fn adopt(&mut self, program: u64, shape: u64, general: u32, key: u64, hashes: &[u64], wanted: &mut Vec<Wanted>) {
        let General { mask, codes, .. } = self.generals[general as usize];
        for at in self.alike.get(&shape).cloned().unwrap_or_default() {
            let leaf = self.leaves[at as usize].clone();
            let same = |position: usize| mask >> position & 1 == 1 || leaf.hashes[position] == hashes[position];
            if leaf.hashes.len() != hashes.len() || !(0..hashes.len()).all(same) {
                continue;
            }
            let mut masked = Masked::new(self.keyed);
            masked.template(program, leaf.new.text.as_bytes());
            let form = Form::new(program, &masked, leaf.new.text.as_bytes());
            if form.masked_key(&self.keyed, mask) != Some(key) || form.codes() & mask & !codes != 0 {
                continue;
            }
            if leaf.own == mask && leaf.key == key {
                self.generals[general as usize].own = at;
            }
            self.join(&form, at, wanted);
            self.settle(at, &form);
        }
    }

    /// Puts a leaf below the widest general that matches it.
    fn settle(&mut self, at: Index, form: &Form<'_>) {
        let widest = self.above(form).into_iter().max_by_key(|(mask, _)| (mask.count_ones(), *mask));
        let old = self.roots[at as usize];
        let Some((_, general)) = widest.filter(|(_, general)| *general != old) else { return };
        self.moved.push(at);
        if let Some(old) = self.generals.get_mut(old as usize) {
            old.members = old.members.saturating_sub(1);
        }
        self.roots[at as usize] = general;
        let general = &mut self.generals[general as usize];
        general.members += 1;
        let mut values = form.masked.values.iter().map(|value| value.kind);
        let kinds = form.masked.pieces.iter().map(|piece| match piece.what {
            What::Var => values.next().unwrap_or(SlotKind::Any),
            _ => SlotKind::Word,
        });
        if general.kinds.is_empty() {
            general.kinds = kinds.collect();
        } else {
            for (old, new) in general.kinds.iter_mut().zip(kinds) {
                *old = template::join(*old, new);
            }
        }
    }

    /// A leaf as rows show it.
    pub(crate) fn named(&self, at: Index) -> Named {
        let (leaf, mask) = (&self.leaves[at as usize], self.root_mask(at));
        let text = leaf.new.text.as_bytes();
        let mut masked = Masked::new(self.keyed);
        masked.template(0, text);
        let word = |variable: &template::Variable| {
            let piece = masked.pieces.get(variable.piece).filter(|piece| piece.what == What::Word)?;
            Some(String::from_utf8_lossy(Masked::word(text, piece)).as_ref().into())
        };
        let rendered = template::render(&masked, text, mask, self.kinds(at));
        let variables = rendered.variables.into_iter().map(|variable| (word(&variable), variable)).collect();
        Named { leaf: leaf.new.leaf, root: self.root(at), text: rendered.shown.into(), variables }
    }

    /// The kinds of a leaf's variables that are no words of its own, and the positions that stand for words: all that is
    /// needed to count its values. `masked` is for reading its text.
    pub(crate) fn slots(&self, at: Index, masked: &mut Masked) -> (Vec<SlotKind>, u128) {
        let leaf = &self.leaves[at as usize];
        let text = leaf.new.text.as_bytes();
        masked.template(0, text);
        let variables = template::variables(masked, text, self.root_mask(at), self.kinds(at));
        let is_value = |variable: &template::Variable| masked.pieces[variable.piece].what != What::Word;
        (variables.into_iter().filter(is_value).map(|variable| variable.kind).collect(), leaf.own)
    }

    /// The kinds of the pieces in a leaf's root; none when it is its own.
    fn kinds(&self, at: Index) -> &[SlotKind] {
        self.general_of(at).map_or(&[], |general| &self.generals[general as usize].kinds)
    }
}

/// A leaf as rows show it.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) leaf: LeafId,
    pub(crate) root: RootId,
    /// The root's text.
    pub(crate) text: Arc<str>,
    /// The root's variables, each with the leaf's word when it has one there.
    pub(crate) variables: Vec<(Option<Arc<str>>, template::Variable)>,
}

impl Named {
    /// A leaf of which nothing else is known.
    pub(crate) fn unknown(leaf: LeafId) -> Self {
        Self { leaf, root: leaf.as_root(), text: "".into(), variables: Vec::new() }
    }
}

/// What a hole with these words is.
fn weigh(words: &[Word], left: usize) -> Hole {
    let seen = words.iter().filter(|word| **word != Word::VALUE);
    let (plain, codes) = seen.fold((0, 0), |(plain, codes), word| match word.weight() {
        0 => (plain + 1, codes),
        weight => (plain, codes + weight),
    });
    let all = codes + plain * usize::from(PLAIN_WEIGHT);
    let needed = if words.contains(&Word::VALUE) { threshold_beside_values(left) } else { threshold(left) };
    match () {
        () if all >= ENOUGH.max(threshold(left).saturating_mul(usize::from(PLAIN_WEIGHT))) => Hole::Codes,
        () if plain >= needed => Hole::Words,
        () => Hole::Constant,
    }
}

fn shape(program: u64, pieces: usize) -> u64 {
    program ^ (pieces as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The id of a leaf or root with this text.
pub(crate) fn leaf_id(program: &str, rendered: &Rendered) -> LeafId {
    LeafId::of(&[FORMAT, program.as_bytes(), rendered.canonical.as_bytes()])
}
