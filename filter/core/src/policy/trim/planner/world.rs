//! What the provider holds, of what was sent and of what would have been, and the prices of that.

use sluice_wire::Usd;

use super::digest::chain;
use super::{
    Anew, Ask, Candidate, End, Going, Item, MAX_MARKS, MAX_RANGES, MAX_TURNS, Mark, Nothing, Sent,
    Why,
};
use crate::config::PrefixCache;

/// One way to send the request.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub(super) why: Why,
    pub(super) anew: Option<usize>,
    pub(super) keep: Vec<bool>,
    /// Items from here on go out edited.
    pub(super) edited_from: usize,
    /// Tokens that come in for what is left out.
    extra: u64,
    /// The first item that is left out, in whose place they stand.
    gap: usize,
    /// They are those that were sent last.
    extra_held: bool,
    /// Marks of our own.
    pub(super) marks: Vec<usize>,
    /// Tokens of the first 0, 1, 2, … items as they go out.
    sums: Vec<u64>,
    /// Items whose front goes out as it was sent last.
    same: usize,
}

impl Way {
    /// Nothing that is needed is missing.
    pub(super) fn fits(&self, items: &[Item]) -> bool {
        let mut both = self.keep.iter().zip(items);
        both.all(|(keep, item)| *keep || !item.needed)
    }

    fn keeps(&self, at: usize) -> bool {
        self.keep.get(at).is_some_and(|keep| *keep)
    }

    /// Tokens of the first `items` items.
    fn upto(&self, items: usize) -> u64 {
        upto(&self.sums, items)
    }

    /// Extra tokens that are held where the first `items` items are.
    fn held_extra(&self, items: usize) -> u64 {
        match self.extra_held && items > self.gap {
            true => self.extra,
            false => 0,
        }
    }

    /// Prompt tokens.
    fn tokens(&self) -> u64 {
        self.sums.last().copied().unwrap_or(0) + self.extra
    }

    /// Ranges of items that are left out.
    fn dropped(&self) -> Vec<(u32, u32)> {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for (at, keep) in (0_u32..).zip(&self.keep) {
            match ranges.last_mut() {
                _ if *keep => {}
                Some((_, end)) if *end == at => *end = at + 1,
                _ => ranges.push((at, at + 1)),
            }
        }
        ranges
    }
}

/// No text has so many tokens; sums of more could overflow.
const MOST: u64 = 1 << 40;

/// How an item goes out: its tokens and its digest.
fn outgoing(item: &Item, at: usize, edited_from: usize) -> (u64, u64) {
    match at >= edited_from {
        true => (
            item.sent_tokens.min(item.tokens).min(MOST),
            item.sent_digest,
        ),
        false => (item.tokens.min(MOST), item.digest),
    }
}

/// Both worlds as far as they are known before the request goes out.
#[derive(Debug)]
pub(super) struct World<'a> {
    pub(super) ask: &'a Ask<'a>,
    /// Tokens of the first 0, 1, 2, … items as the client sent them.
    sums: Vec<u64>,
    /// Digests of the same.
    client: Vec<u64>,
    /// What was sent last, item by item; new items stay.
    last_keep: Vec<bool>,
    last_edited_from: usize,
    last_extra: u64,
    /// Extending it, items from here on go out edited.
    extended_from: usize,
    /// Items up to which that is what the provider may hold.
    known: usize,
    /// Items up to which the provider may hold what the client sent, had it gone out so.
    feared: usize,
    /// Items up to which the client's marks let the provider write; all where it caches by itself.
    written: usize,
    /// Ends of the items that bore the client's marks last time.
    read_ends: Vec<usize>,
    /// End of the item that bore our own last mark.
    own_end: usize,
    /// So far nothing has been left out: sending the whole is doing nothing.
    untouched: bool,
    /// The provider certainly holds nothing of the conversation.
    cold: bool,
    /// How probable it is that it does, in thousandths.
    odds_milli: u64,
    prices: Prices,
}

/// Per token: plain, read from the provider's cache, written to it.
#[derive(Clone, Copy, Debug)]
struct Prices {
    plain: Usd,
    read: Usd,
    write: Usd,
}

impl Prices {
    fn of(ask: &Ask<'_>) -> Prices {
        let price = ask.price;
        let plain = price.input;
        let hour = ask.items.iter().any(|item| item.mark == Some(Mark::Hour));
        let write = match ask.prefix.cache {
            PrefixCache::Marked if hour => price.cache_write.max(plain.times(2)),
            PrefixCache::Marked => price.cache_write.max(plain),
            PrefixCache::None | PrefixCache::Automatic => plain,
        };
        let read = match ask.prefix.cache {
            PrefixCache::None => plain,
            PrefixCache::Marked | PrefixCache::Automatic => price.cached_input.min(plain),
        };
        Prices { plain, read, write }
    }
}

impl<'a> World<'a> {
    pub(super) fn of(ask: &'a Ask<'a>) -> World<'a> {
        let items = ask.items;
        let len = items.len();
        let marked = items.iter().rposition(|item| item.mark.is_some());
        let mut world = World {
            ask,
            sums: sums(items.iter().map(|item| item.tokens.min(MOST))),
            client: chain(items.iter().map(|item| item.digest)),
            last_keep: vec![true; len],
            last_edited_from: len,
            last_extra: 0,
            extended_from: ask.turn,
            known: len.saturating_sub(1),
            feared: len.saturating_sub(1),
            written: match ask.prefix.cache {
                PrefixCache::Automatic => len,
                PrefixCache::Marked => marked.map_or(0, |at| at + 1),
                PrefixCache::None => 0,
            },
            read_ends: Vec::new(),
            own_end: 0,
            untouched: true,
            cold: false,
            odds_milli: 500,
            prices: Prices::of(ask),
        };
        match ask.last {
            Some(last) => world.remember(last),
            None => world.begin(),
        }
        world.feared = world.feared.min(world.written);
        world
    }

    /// A conversation that we do not know.
    fn begin(&mut self) {
        let items = self.ask.items;
        // All but its last item may have been sent, and whole; but not where there is no more.
        self.cold = self.ask.turns <= 1 && self.ask.turn + 1 == items.len();
        if self.cold {
            self.odds_milli = 0;
        }
        let marked = items
            .iter()
            .enumerate()
            .filter(|(_, item)| item.mark.is_some());
        let ends = marked.map(|(at, _)| at + 1);
        self.read_ends = ends.filter(|end| *end <= self.known).collect();
    }

    fn remember(&mut self, last: &Sent) {
        let len = self.ask.items.len();
        for &(from, to) in &last.dropped {
            let range = (from as usize).min(len)..(to as usize).min(len);
            for keep in self.last_keep.get_mut(range).into_iter().flatten() {
                *keep = false;
            }
        }
        self.last_edited_from = last.edited_from as usize;
        self.last_extra = last.extra.min(MOST);
        let outgoing = chain(self.digests(&self.last_keep, self.last_edited_from));
        let is = |digests: &[u64], items: u32, digest: u64| {
            digests.get(items as usize).is_some_and(|of| *of == digest)
        };
        let known = last.ends.iter().find(|end| {
            is(&self.client, end.items, end.client) && is(&outgoing, end.items, end.sent)
        });
        self.known = known.map_or(0, |end| end.items as usize);
        self.extended_from = self.last_edited_from.min(self.known);
        let whole = last.ends.first().is_some_and(|end| end.client == end.sent);
        self.untouched = whole && last.dropped.is_empty() && last.extra == 0;
        for keep in self.last_keep.iter_mut().skip(self.known) {
            *keep = true;
        }
        let grown = last.ends.first();
        let grown = grown.filter(|end| is(&self.client, end.items, end.client));
        self.fear(last, grown.map(|end| end.items as usize));
        let pause = self.ask.now_ms.saturating_sub(last.at_ms);
        let lifetime_ms = self.ask.prefix.lifetime_ms;
        self.cold = pause > self.longest_ms();
        self.odds_milli = match pause {
            _ if self.cold => 0,
            pause if pause <= lifetime_ms => 1000,
            // It falls as the pause grows: half at twice the time.
            pause => lifetime_ms.saturating_mul(1000) / pause.max(1),
        };
    }

    /// How much of the client's request may be held, which has `grown` from so many items that it
    /// sent last. None: it has changed what it sent, perhaps back to what it sent before that, so
    /// that all but the last item may be held.
    fn fear(&mut self, last: &Sent, grown: Option<usize>) {
        if let Some(items) = grown {
            self.feared = items;
        }
        if self.ask.prefix.cache != PrefixCache::Marked {
            return;
        }
        let ends = last.marks.iter().map(|at| *at as usize + 1);
        if last.own {
            // Without us there would be no marks.
            self.own_end = ends.filter(|end| *end <= self.known).max().unwrap_or(0);
            self.feared = 0;
            return;
        }
        self.read_ends = ends.filter(|end| *end <= self.feared).collect();
        if grown.is_some() {
            self.feared = self.read_ends.iter().copied().max().unwrap_or(0);
        }
    }

    /// The longest that the provider may hold what was sent.
    fn longest_ms(&self) -> u64 {
        const HOUR: u64 = 3_600_000;
        let hour = self.prices.write > self.ask.price.cache_write.max(self.prices.plain);
        let longest = self.ask.prefix.longest_ms;
        if hour {
            longest.max(HOUR + HOUR / 6)
        } else {
            longest
        }
    }

    /// Digests of what goes out of a selection, one per item that stays.
    fn digests<'s>(
        &'s self,
        keep: &'s [bool],
        edited_from: usize,
    ) -> impl Iterator<Item = u64> + 's {
        let items = self.ask.items.iter().enumerate().zip(keep);
        // What is left out counts as such: places in the chain are items of the request.
        items.map(move |((at, item), keep)| match keep {
            true => outgoing(item, at, edited_from).1,
            false => 0,
        })
    }

    /// The ways to send the request, the one that leaves out least first.
    pub(super) fn ways(&self) -> Vec<Way> {
        let mut ways = vec![self.whole()];
        if self.known > 0 {
            let way = |why, keep, extra: u64| self.way(why, keep, (self.extended_from, extra));
            let going = self.going();
            let extended = way(Why::Extended, self.last_keep.clone(), going.extended);
            if !extended.fits(self.ask.items) {
                let needed = self.ask.items.iter().map(|item| item.needed);
                let keep = extended.keep.iter().zip(needed);
                let keep = keep.map(|(keep, needed)| *keep || needed).collect();
                ways.push(way(Why::Mended, keep, going.mended));
            }
            ways.push(extended);
        }
        for (at, anew) in self.ask.anew.iter().enumerate() {
            ways.extend(self.anew(at, anew));
        }
        if self.may_mark() {
            let marked: Vec<Way> = ways.iter().filter_map(|way| self.marked(way)).collect();
            ways.extend(marked);
        }
        ways
    }

    /// What comes in where the last selection goes on.
    fn going(&self) -> Going {
        let going = self.ask.going.unwrap_or(Going {
            extended: self.last_extra,
            held: true,
            mended: self.last_extra,
        });
        Going {
            extended: going.extended.min(MOST),
            mended: going.mended.min(MOST),
            ..going
        }
    }

    fn whole(&self) -> Way {
        let len = self.ask.items.len();
        self.way(Why::Whole, vec![true; len], (len, 0))
    }

    /// A fresh selection. One of another length is not of this request.
    fn anew(&self, at: usize, anew: &Anew<'_>) -> Option<Way> {
        if anew.keep.len() != self.ask.items.len() {
            return None;
        }
        let way = self.way(Why::Anew, anew.keep.to_vec(), (0, anew.extra.min(MOST)));
        Some(Way {
            anew: Some(at),
            ..way
        })
    }

    fn way(&self, why: Why, keep: Vec<bool>, (edited_from, extra): (usize, u64)) -> Way {
        let items = self.ask.items.iter().enumerate().zip(&keep);
        let tokens = items.map(|((at, item), keep)| match keep {
            true => outgoing(item, at, edited_from).0,
            false => 0,
        });
        let sums = sums(tokens);
        let same = self.same(&keep, edited_from);
        let first_gap = |keep: &[bool]| {
            let gap = keep.iter().position(|keep| !keep);
            gap.unwrap_or(keep.len())
        };
        let gap = first_gap(&keep);
        let extra_held = why == Why::Extended && self.going().held;
        let same = match extra_held || extra + self.last_extra == 0 {
            true => same,
            false => same.min(gap).min(first_gap(&self.last_keep)),
        };
        Way {
            why,
            anew: None,
            keep,
            edited_from,
            extra,
            gap,
            extra_held,
            marks: Vec::new(),
            sums,
            same,
        }
    }

    /// Items up to which a selection goes out as it did last.
    fn same(&self, keep: &[bool], edited_from: usize) -> usize {
        let now = self.digests(keep, edited_from);
        let last = self.digests(&self.last_keep, self.last_edited_from);
        let differs = now.zip(last).position(|(now, last)| now != last);
        differs.unwrap_or(keep.len()).min(self.known)
    }

    /// Where the client sets no marks, and never did, ours may pay.
    fn may_mark(&self) -> bool {
        let client = self.written > 0 || !self.read_ends.is_empty();
        self.ask.marks && self.ask.prefix.cache == PrefixCache::Marked && !client
    }

    /// The same way with marks of ours: at the front, where the last one was (so that what was
    /// written there is found however many blocks have come since), and at the end.
    fn marked(&self, way: &Way) -> Option<Way> {
        let last = way.keep.iter().rposition(|keep| *keep)?;
        let held = self
            .own_end
            .checked_sub(1)
            .filter(|_| self.own_end <= way.same);
        let mut marks: Vec<usize> = [Some(0), held, Some(last)].into_iter().flatten().collect();
        marks.retain(|at| way.keeps(*at) && self.counts(way.upto(at + 1)));
        marks.dedup();
        marks.truncate(MAX_MARKS);
        (marks.last() == Some(&last)).then(|| Way {
            marks,
            ..way.clone()
        })
    }

    /// What a way comes to.
    pub(super) fn price(&self, way: &Way) -> Candidate {
        let saves = self.saves(way);
        let balance = self.ask.last.map_or(Usd::ZERO, |last| last.balance);
        Candidate {
            why: way.why,
            tokens: way.tokens(),
            cost: self.expected(way.tokens(), self.held(way), self.marked_tokens(way)),
            saves,
            payable: balance + saves >= Usd::ZERO
                && self.lasts(way)
                && way.dropped().len() <= MAX_RANGES,
            marked: !way.marks.is_empty(),
        }
    }

    /// The least that a way saves in this turn.
    fn saves(&self, way: &Way) -> Usd {
        if self.is_nothing(way) {
            return Usd::ZERO;
        }
        // What stands before the messages may be held by way of other conversations, which edit it
        // alike: as they are sent and as they would be.
        let front = self.written.min(1);
        let cold = self.bound(way, front, front);
        let least = match self.cold {
            true => cold,
            false => cold.min(self.bound(way, self.feared, self.read_end(way))),
        };
        // In the worst case nothing is held and all is written.
        let premium = self.prices.write - self.prices.plain;
        match way.marks.is_empty() {
            true => least,
            false => least - premium.times(self.more(way.tokens())),
        }
    }

    /// It is what the client sent, and so was all that went before.
    fn is_nothing(&self, way: &Way) -> bool {
        way.why == Why::Whole && self.untouched && way.marks.is_empty()
    }

    /// The module's inequality, where the provider holds `feared` items of the client's request,
    /// and of what goes out the first `end`.
    fn bound(&self, way: &Way, feared: usize, end: usize) -> Usd {
        let feared = if self.out_of_reach(feared) { 0 } else { feared };
        let Prices { plain, read, write } = self.prices;
        let left_out = |items: usize| upto(&self.sums, items).saturating_sub(way.upto(items));
        let written = self.written.max(feared);
        let (one, two) = (left_out(feared), left_out(written));
        let all = left_out(self.ask.items.len());
        let extra = match way.held_extra(end) {
            0 => write,
            _ => read,
        };
        // What is too short is not written, and was never paid for as such.
        let saved = match self.counts(upto(&self.sums, written)) {
            true => write,
            false => plain,
        };
        read.times(self.less(one))
            + saved.times(self.less(two.saturating_sub(one)))
            + plain.times(self.less(all.saturating_sub(two)))
            - extra.times(self.more(way.extra))
            - (write - read).times(self.read_anew(way, feared, end))
    }

    /// Most tokens by which the discount of what goes out falls short of what was left in place.
    fn read_anew(&self, way: &Way, feared: usize, end: usize) -> u64 {
        let front = way.upto(end) + way.held_extra(end);
        if feared == 0 || (end == feared && front == upto(&self.sums, feared)) {
            return 0;
        }
        let anew = way.upto(feared).saturating_sub(way.upto(end));
        self.more(anew) + self.rounding(front)
    }

    /// Most tokens by which a front's discount falls short of a longer one's beyond the difference.
    fn rounding(&self, front: u64) -> u64 {
        match self.counts(front) {
            true => self.ask.prefix.step.saturating_sub(1),
            false => self
                .more(front)
                .min(self.ask.prefix.min_tokens.saturating_sub(1)),
        }
    }

    /// Items up to which the provider reads what goes out, where it would have read `feared`.
    fn read_end(&self, way: &Way) -> usize {
        if way.same >= self.feared || self.ask.prefix.cache != PrefixCache::Marked {
            return way.same.min(self.feared);
        }
        // Only from a mark that was there and still is.
        let still = |end: &usize| {
            let at = end.saturating_sub(1);
            let item = self.ask.items.get(at);
            item.is_some_and(|item| item.mark.is_some()) && way.keeps(at)
        };
        let ends = self.read_ends.iter().copied();
        let ends = ends.filter(|end| *end <= way.same && still(end));
        ends.max().unwrap_or(0)
    }

    /// What this way begins can go on for ever without a turn that costs more than nothing would.
    fn lasts(&self, way: &Way) -> bool {
        let Prices { read, write, .. } = self.prices;
        let end = match self.ask.prefix.cache {
            PrefixCache::None => return true,
            PrefixCache::Automatic => self.ask.items.len(),
            PrefixCache::Marked => {
                let before = self.read_ends.iter().copied().max().unwrap_or(0);
                if self.written > 0 {
                    self.written
                } else {
                    before
                }
            }
        };
        let left_out = upto(&self.sums, end).saturating_sub(way.upto(end));
        let unchanged = left_out == 0 && way.extra == 0;
        if unchanged || self.out_of_reach(end) || read == write {
            return true;
        }
        // It only grows; but what stands before the messages may be all that is held.
        let short = |items: usize| !self.counts(way.upto(items)) && !self.out_of_reach(items);
        let front = upto(&self.sums, 1) > way.upto(1) && short(1);
        let rounding = match front || short(end) {
            true => self.ask.prefix.min_tokens.saturating_sub(1),
            false => self.ask.prefix.step.saturating_sub(1),
        };
        let loses = (write - read).times(rounding) + read.times(self.more(way.extra));
        read.times(self.less(left_out)) >= loses
    }

    /// The first `items` items as the client sent them are too short for a discount.
    fn out_of_reach(&self, items: usize) -> bool {
        self.more(upto(&self.sums, items)) < self.ask.prefix.min_tokens
    }

    /// A front of so many tokens certainly earns a discount.
    fn counts(&self, tokens: u64) -> bool {
        self.less(tokens) >= self.ask.prefix.min_tokens
    }

    /// Tokens that are read from the cache if the provider still holds them, as expected.
    fn held(&self, way: &Way) -> u64 {
        let end = match way.marks.is_empty() {
            true => self.read_end(way),
            false if self.own_end <= way.same => self.own_end,
            false => 0,
        };
        self.discounted(way.upto(end) + way.held_extra(end))
    }

    /// Tokens up to the last mark.
    fn marked_tokens(&self, way: &Way) -> u64 {
        match way.marks.is_empty() {
            true if self.written == 0 => 0,
            true => way.upto(self.written) + way.extra,
            false => way.tokens(),
        }
    }

    /// Of a front that the provider holds, what it discounts.
    fn discounted(&self, tokens: u64) -> u64 {
        let prefix = &self.ask.prefix;
        if tokens < prefix.min_tokens || prefix.cache == PrefixCache::None {
            return 0;
        }
        tokens - (tokens - prefix.min_tokens) % prefix.step.max(1)
    }

    /// Expected dollars of a prompt, of which `held` tokens may be held and `marked` are written
    /// where they are not.
    fn expected(&self, tokens: u64, held: u64, marked: u64) -> Usd {
        let Prices { plain, read, write } = self.prices;
        let bill = |held: u64| {
            let written = self.writable(marked).saturating_sub(held);
            let rest = tokens.saturating_sub(held).saturating_sub(written);
            read.times(held) + write.times(written) + plain.times(rest)
        };
        mean(bill(held), bill(0), self.odds_milli)
    }

    /// What is too short is not written.
    fn writable(&self, tokens: u64) -> u64 {
        if tokens < self.ask.prefix.min_tokens {
            0
        } else {
            tokens
        }
    }

    /// Expected dollars of the prompt had nothing ever been left out.
    pub(super) fn cost_of_nothing(&self) -> Usd {
        let tokens = upto(&self.sums, self.ask.items.len());
        let held = self.discounted(upto(&self.sums, self.feared));
        self.expected(tokens, held, upto(&self.sums, self.written))
    }

    /// Expected dollars of this turn and of reading what it sends once more in the next, in the
    /// conversation's own rhythm.
    ///
    /// One turn ahead, though more may follow: what is not cut now can be cut then at the same
    /// price. Looking further ahead cut more often and cost more, up to a tenth (the conversations
    /// of the replay, 2 to 30 turns ahead).
    pub(super) fn up_to_the_next(&self, way: &Way, now: Usd) -> Usd {
        let Prices { plain, read, write } = self.prices;
        let cached = !way.marks.is_empty() || self.written > 0;
        let last = self.ask.last;
        let (pauses, short) = last.map_or((0, 0), |last| (last.pauses, last.short_pauses));
        // Laplace's rule of succession: even odds for a conversation of which nothing is known.
        let odds = (u64::from(short) + 1) * 1000 / (u64::from(pauses) + 2);
        let again = match cached && way.tokens() >= self.ask.prefix.min_tokens {
            true => mean(read, write, odds),
            false => plain,
        };
        now + again.times(way.tokens())
    }

    /// The request in the world where nothing was ever left out.
    pub(super) fn nothing(&self, way: &Way) -> Nothing {
        Nothing {
            tokens: upto(&self.sums, self.ask.items.len()),
            held: self.discounted(upto(&self.sums, self.feared)),
            marked: match self.ask.prefix.cache {
                PrefixCache::Marked => self.writable(upto(&self.sums, self.written)),
                PrefixCache::Automatic | PrefixCache::None => 0,
            },
            sent_held: self.held(way),
            odds_milli: self.odds_milli,
        }
    }

    /// What to remember of a way that is sent and saves so much at least.
    pub(super) fn sent(&self, way: &Way, saves: Usd) -> Sent {
        let ask = self.ask;
        let last = ask.last.cloned().unwrap_or_default();
        let (marks, own) = self.marks_to_remember(way, &last);
        let pause = ask.last.map(|last| ask.now_ms.saturating_sub(last.at_ms));
        let short = pause.is_some_and(|pause| pause <= ask.prefix.lifetime_ms);
        Sent {
            at_ms: ask.now_ms,
            ends: self.ends(way, &last),
            dropped: way.dropped(),
            edited_from: u32::try_from(way.edited_from).unwrap_or(u32::MAX),
            extra: way.extra,
            marks,
            own,
            balance: last.balance + saves,
            pauses: last.pauses.saturating_add(u32::from(pause.is_some())),
            short_pauses: last.short_pauses.saturating_add(u32::from(short)),
        }
    }

    fn marks_to_remember(&self, way: &Way, last: &Sent) -> (Vec<u32>, bool) {
        let narrow = |at: &usize| u32::try_from(*at).ok();
        let marked = self.ask.items.iter().enumerate();
        let marked = marked.filter(|(_, item)| item.mark.is_some());
        let client: Vec<u32> = marked.filter_map(|(at, _)| narrow(&at)).collect();
        let first = client.len().saturating_sub(MAX_MARKS);
        match () {
            () if !client.is_empty() => (client[first..].to_vec(), false),
            () if !way.marks.is_empty() => (way.marks.iter().filter_map(narrow).collect(), true),
            // Entries at these marks may live on.
            () if !last.own => (last.marks.clone(), false),
            () => (Vec::new(), false),
        }
    }

    fn ends(&self, way: &Way, last: &Sent) -> Vec<End> {
        let sent = chain(self.digests(&way.keep, way.edited_from));
        let len = self.ask.items.len();
        let before = last.ends.iter().skip(1).map(|end| end.items as usize);
        let before = before.filter(|items| *items < self.ask.turn.min(self.known));
        let places = [len, self.ask.turn.min(len)].into_iter().chain(before);
        let ends = places.filter_map(|items| {
            Some(End {
                items: u32::try_from(items).ok()?,
                client: *self.client.get(items)?,
                sent: *sent.get(items)?,
            })
        });
        ends.take(1 + MAX_TURNS).collect()
    }

    /// The least that so many tokens by our count may be by the provider's.
    fn less(&self, tokens: u64) -> u64 {
        tokens.saturating_sub(self.error(tokens))
    }

    /// The most.
    fn more(&self, tokens: u64) -> u64 {
        tokens.saturating_add(self.error(tokens))
    }

    fn error(&self, tokens: u64) -> u64 {
        tokens.saturating_mul(self.ask.margin_milli).div_ceil(1000)
    }
}

fn sums(tokens: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut sums = vec![0];
    let mut so_far = 0_u64;
    sums.extend(tokens.map(|tokens| {
        so_far = so_far.saturating_add(tokens);
        so_far
    }));
    sums
}

fn upto(sums: &[u64], items: usize) -> u64 {
    sums.get(items).or(sums.last()).copied().unwrap_or(0)
}

/// The mean of two amounts, of which the first comes `odds` times in a thousand.
fn mean(one: Usd, other: Usd, odds: u64) -> Usd {
    let share = |amount: Usd, odds: u64| Usd(amount.times(odds).0 / 1000);
    share(one, odds) + share(other, 1000_u64.saturating_sub(odds))
}
