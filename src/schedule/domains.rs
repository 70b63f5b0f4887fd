//! Zones and other domains: which pods go to which, before they are packed.
//!
//! A pod with a rule over a topology key (or whom such a rule means) gets one domain, or a set of
//! domains, so that packing need not look at it again. Pods bind in two waves: those with a required
//! spread first, so that others never count against it.
//!
//! What other pods of the plan add to a domain is known exactly only for pods with one domain. Two
//! counts are kept, the least and the most that can come true, and each rule looks at the worse one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fixedbitset::FixedBitSet;

use super::compile::{Compiled, Shape};
use super::host::binds_first;
use super::reason::Reason;
use super::topology::{ABSENT, Kind, Near, Rules, Spread, UNKNOWN};
use crate::model::requirement::Requirement;

/// Most pods of an origin that a domain can take, where that is known: `(origin, key, domain)`.
pub(super) type Caps = BTreeMap<(usize, usize, usize), u32>;

/// Most room and least price in each domain of a key; the domain after the last is "no label".
type Reach = Arc<Vec<Option<(Vec<i64>, i64)>>>;

/// Pods that are there and counted, by domain; `None` where no node is eligible.
type Eligible = Arc<Vec<Option<i64>>>;

/// Columns, nodes, key and domains.
type Pin = (usize, usize, usize, Vec<usize>);

/// Planned pods of one admission that a counter counts, by domain: at least and at most.
struct Planned {
    admission: usize,
    least: Vec<i64>,
    most: Vec<i64>,
}

struct Planner<'c, 'a> {
    compiled: &'c mut Compiled<'a>,
    caps: &'c Caps,
    /// By counter.
    planned: Vec<Vec<Planned>>,
    /// Planned pods that repel what the counter counts, by counter and domain, at most.
    repels: Vec<Vec<i64>>,
    /// Pods that are there, by counter and domain, and those that repel.
    there: Vec<Vec<i64>>,
    there_repels: Vec<Vec<i64>>,
    /// Planned pods by key and domain.
    load: Vec<Vec<i64>>,
    column_reach: BTreeMap<(usize, usize), Reach>,
    node_reach: BTreeMap<(usize, usize), Reach>,
    eligible: BTreeMap<(u32, [usize; 2]), Eligible>,
    /// Columns and nodes narrowed to domains of a key.
    pinned: BTreeMap<Pin, (usize, usize)>,
    out: Vec<Shape>,
}

/// Gives domains to all shapes that need them. Pods for which no domain is left keep a shape
/// without columns and nodes, with the reason.
pub(super) fn assign(compiled: &mut Compiled<'_>, caps: &Caps) {
    if compiled.topology.keys.is_empty() {
        return;
    }
    let size = |key: Option<usize>| key.map_or(0, |k| compiled.topology.keys[k].domains.len() + 1);
    let zeros: Vec<Vec<i64>> =
        compiled.topology.counters.iter().map(|c| vec![0; size(c.key)]).collect();
    let mut there = zeros.clone();
    let mut there_repels = zeros.clone();
    let topology = &compiled.topology;
    for (all, nodes) in
        [(&mut there, &topology.node_matches), (&mut there_repels, &topology.node_owners)]
    {
        for (node, counts) in nodes.iter().enumerate() {
            for (counter, n) in counts {
                let Some(key) = topology.counter(*counter).key else { continue };
                let domain = topology.keys[key].of_node[node];
                if domain != ABSENT {
                    all[*counter as usize][domain as usize] += n;
                }
            }
        }
    }
    let load = topology.keys.iter().map(|key| vec![0; key.domains.len() + 1]).collect();
    let mut shapes = std::mem::take(&mut compiled.shapes);
    // Those whom affinity means come before those who want to be near them; of pods that want to be
    // near each other, those with the fewest places choose, and of these pods that go where others
    // are already.
    let bound = |near: &Near| there[near.counter as usize].iter().any(|n| *n > 0);
    shapes.sort_by_cached_key(|shape| {
        let rules = &shape.rules;
        let mut near = rules.near.iter().filter(|near| near.key.is_some()).peekable();
        let none = near.peek().is_none();
        let own = near.clone().any(|near| near.own);
        let (tied, ahead) = (near.clone().any(|n| !n.own), near.all(|n| n.own || bound(n)));
        let rank = match (none, own && ahead) {
            (true, _) => 0,
            (false, true) => 1,
            (false, false) => 2,
        };
        let far = rules.far.iter().any(|far| far.key.is_some());
        let of = |columns| compiled.sets.get(columns).count_ones(..);
        let places = if rank == 1 && !tied { of(shape.columns) } else { 0 };
        (rank, places, Reverse(shape.pod.priority), !far, !is_early(compiled, rules), shape.origin)
    });
    let mut planner = Planner {
        planned: zeros.iter().map(|_| Vec::new()).collect(),
        repels: zeros,
        there,
        there_repels,
        load,
        column_reach: BTreeMap::new(),
        node_reach: BTreeMap::new(),
        eligible: BTreeMap::new(),
        pinned: BTreeMap::new(),
        out: Vec::with_capacity(shapes.len()),
        caps,
        compiled,
    };
    for shape in shapes {
        planner.place(shape);
    }
    let mut out = planner.out;
    for shape in &mut out {
        // Where others are counted too, these may be out of balance.
        let own = |spread: &Spread| planner.planned[spread.counter as usize].len() == 1;
        if !shape.rules.spreads.iter().filter(|spread| spread.key.is_some()).all(own) {
            shape.floor = 0;
        }
    }
    out.sort_by_key(|shape| shape.origin);
    compiled.shapes = out;
}

/// Whether a shape binds before those without a required spread.
fn is_early(compiled: &Compiled<'_>, rules: &Rules) -> bool {
    !rules.spreads.is_empty() || binds_first(compiled, rules)
}

/// The rules of a shape over one key.
struct Local {
    key: usize,
    admission: usize,
    spreads: Vec<(Spread, Eligible)>,
    near: Vec<Near>,
    far: Vec<Near>,
    /// Counters of others' anti-affinity that count it.
    repelled: Vec<u32>,
    /// All counters that count it in its wave.
    counted: Vec<u32>,
    /// Whether each pod needs one certain domain.
    single: bool,
}

impl Planner<'_, '_> {
    fn place(&mut self, shape: Shape) {
        let mut pieces = vec![shape];
        for key in 0..self.compiled.topology.keys.len() {
            let mut next = Vec::with_capacity(pieces.len());
            for piece in pieces {
                match self.local(&piece, key) {
                    Some(local) if piece.blocked.is_none() => self.split(piece, &local, &mut next),
                    _ => next.push(piece),
                }
            }
            pieces = next;
        }
        self.out.extend(pieces);
    }

    fn local(&mut self, shape: &Shape, key: usize) -> Option<Local> {
        let rules = Arc::clone(&shape.rules);
        let early = is_early(self.compiled, &rules);
        let of = |counter: &u32| self.compiled.topology.counter(*counter);
        let here = |near: &&Near| near.key == Some(key);
        let counted: Vec<u32> = rules
            .matched
            .iter()
            .copied()
            .filter(|c| of(c).key == Some(key) && (of(c).kind != Kind::Spread || early))
            .collect();
        let near: Vec<Near> = rules.near.iter().filter(here).copied().collect();
        let far: Vec<Near> = rules.far.iter().filter(here).copied().collect();
        let repelled = counted.iter().copied().filter(|c| of(c).kind == Kind::Anti).collect();
        let spread_over: Vec<Spread> =
            rules.spreads.iter().filter(|spread| spread.key == Some(key)).copied().collect();
        if counted.is_empty() && near.is_empty() && far.is_empty() && spread_over.is_empty() {
            return None;
        }
        let single = !spread_over.is_empty()
            || far.iter().any(|far| far.own)
            || counted.iter().any(|c| of(c).kind == Kind::Spread);
        let spreads = spread_over.into_iter().map(|s| (s, self.eligible(shape, &s, key))).collect();
        let admission = shape.admission;
        Some(Local { key, admission, spreads, near, far, repelled, counted, single })
    }

    /// Pods that are there and counted, by domain; `None` where no node is eligible.
    fn eligible(&mut self, shape: &Shape, spread: &Spread, key: usize) -> Eligible {
        let sets = [
            if spread.honor_affinity { shape.affine } else { usize::MAX },
            if spread.honor_taints { shape.tolerated } else { usize::MAX },
        ];
        if let Some(known) = self.eligible.get(&(spread.counter, sets)) {
            return Arc::clone(known);
        }
        let topology = &self.compiled.topology;
        let key = &topology.keys[key];
        let mut counts: Vec<Option<i64>> = vec![None; key.domains.len() + 1];
        for (node, domain) in key.of_node.iter().enumerate() {
            let admits =
                |set: &usize| *set == usize::MAX || self.compiled.sets.get(*set).contains(node);
            if *domain == ABSENT || !sets.iter().all(admits) {
                continue;
            }
            let here = topology.node_matches[node].iter().find(|(c, _)| *c == spread.counter);
            *counts[*domain as usize].get_or_insert(0) += here.map_or(0, |(_, n)| *n);
        }
        let counts = Arc::new(counts);
        self.eligible.insert((spread.counter, sets), Arc::clone(&counts));
        counts
    }

    /// Least price of each domain that has room for a pod of the shape; nodes that exist cost 0.
    fn open(&mut self, shape: &Shape, key: usize) -> Vec<Option<i64>> {
        let compiled = &*self.compiled;
        let of = &compiled.topology.keys[key];
        let absent = of.domains.len();
        let grow = |reach: &mut Vec<Option<(Vec<i64>, i64)>>, domain: u32, room: &[i64], price| {
            let at = if domain == ABSENT { absent } else { domain as usize };
            let (most, least) = reach[at].get_or_insert_with(|| (room.to_vec(), price));
            most.iter_mut().zip(room).for_each(|(most, room)| *most = (*most).max(*room));
            *least = (*least).min(price);
        };
        let by_column = self.column_reach.entry((shape.columns, key)).or_insert_with(|| {
            let mut reach = vec![None; absent + 1];
            for column in compiled.sets.get(shape.columns).ones() {
                let room = &compiled.offers.rooms[compiled.offers.columns[column].room];
                let price = compiled.offers.columns[column].price;
                for domain in of.of(column, compiled.offers.columns[column].pool) {
                    grow(&mut reach, domain, room, price);
                }
            }
            Arc::new(reach)
        });
        let by_node = self.node_reach.entry((shape.nodes, key)).or_insert_with(|| {
            let mut reach = vec![None; absent + 1];
            for node in compiled.sets.get(shape.nodes).ones() {
                let room = compiled.free(node);
                grow(&mut reach, of.of_node[node], &room, 0);
            }
            Arc::new(reach)
        });
        let fits = |reach: &Option<(Vec<i64>, i64)>| {
            let (most, price) = reach.as_ref()?;
            let fits = shape.request.iter().zip(most).all(|(ask, room)| *ask <= 0 || ask <= room);
            fits.then_some(*price)
        };
        let mut open: Vec<Option<i64>> = by_column
            .iter()
            .zip(by_node.iter())
            .map(|(column, node)| fits(node).or_else(|| fits(column)))
            .collect();
        for (at, open) in open.iter_mut().enumerate() {
            // Where a pool leaves the label open, it is the pod that may not.
            let admits = |value: &Arc<str>| {
                let wanted = shape.alternatives.iter().map(|all| all.get(&of.name));
                wanted.into_iter().any(|wanted| wanted.is_none_or(|wanted| wanted.allows(value)))
            };
            let shut = !of.choices.is_empty() && of.domains.get(at).is_some_and(|d| !admits(d));
            if shut || self.caps.get(&(shape.origin, key, at)) == Some(&0) {
                *open = None;
            }
        }
        open
    }

    fn least(&self, counter: u32, domain: usize, admission: Option<usize>) -> i64 {
        let planned = self.planned[counter as usize].iter();
        let certain = planned.filter(|p| admission.is_none_or(|own| own == p.admission));
        certain.map(|p| p.least[domain]).sum()
    }

    fn most(&self, counter: u32, domain: usize) -> i64 {
        self.planned[counter as usize].iter().map(|p| p.most[domain]).sum()
    }

    /// Whether spreads, anti-affinity and affinity let one more pod into the domain.
    fn allows(&self, local: &Local, open: &[Option<i64>], domain: usize) -> bool {
        let absent = domain + 1 == open.len();
        if absent {
            return local.spreads.is_empty() && local.near.is_empty();
        }
        let far = local.far.iter().all(|far| {
            self.there[far.counter as usize][domain] + self.most(far.counter, domain) == 0
        });
        let repelled = local.repelled.iter().all(|counter| {
            self.there_repels[*counter as usize][domain] + self.repels[*counter as usize][domain]
                == 0
        });
        let near = local.near.iter().all(|near| self.has(near, domain));
        far && repelled && near && local.spreads.iter().all(|s| self.keeps(local, open, s, domain))
    }

    /// Whether one more pod in the domain keeps the skew.
    fn keeps(
        &self,
        local: &Local,
        open: &[Option<i64>],
        (spread, there): &(Spread, Eligible),
        domain: usize,
    ) -> bool {
        let certain = (spread.honor_affinity || spread.honor_taints).then_some(local.admission);
        let mut domains = 0;
        let mut fewest = i64::MAX;
        for at in 0..open.len() - 1 {
            if there[at].is_some() || open[at].is_some() {
                domains += 1;
                let count = there[at].unwrap_or(0) + self.least(spread.counter, at, certain);
                fewest = fewest.min(count);
            }
        }
        if domains < spread.min_domains {
            fewest = 0;
        }
        let here = there[domain].unwrap_or(0) + self.most(spread.counter, domain);
        here + i64::from(spread.own) - fewest <= spread.skew
    }

    /// Whether a domain has pods that a term means, or the pod may be the first of them.
    fn has(&self, near: &Near, domain: usize) -> bool {
        self.there[near.counter as usize][domain] > 0
            || self.least(near.counter, domain, None) > 0
            || self.starts(near)
    }

    /// Whether a pod may be the first of those that a term of it means.
    fn starts(&self, near: &Near) -> bool {
        let nobody = |counts: &[i64]| counts.iter().all(|n| *n == 0);
        near.own
            && nobody(&self.there[near.counter as usize])
            && self.planned[near.counter as usize].iter().all(|planned| nobody(&planned.most))
    }

    fn split(&mut self, shape: Shape, local: &Local, next: &mut Vec<Shape>) {
        let open = self.open(&shape, local.key);
        let start = local.near.iter().any(|near| self.starts(near));
        self.invite(local, &open);
        if local.single || start || !local.far.is_empty() {
            self.share_out(shape, local, &open, next);
            return;
        }
        let allowed: Vec<usize> = (0..open.len())
            .filter(|d| open[*d].is_some() && self.allows(local, &open, *d))
            .collect();
        let mut rest = shape;
        if allowed.is_empty() {
            self.block(&mut rest, local);
        } else {
            self.record(local, &allowed, rest.left());
            self.pin(&mut rest, local.key, &allowed);
        }
        next.push(rest);
    }

    /// Shares pods out over domains, one by one to the emptiest that is allowed.
    fn share_out(
        &mut self,
        mut rest: Shape,
        local: &Local,
        open: &[Option<i64>],
        next: &mut Vec<Shape>,
    ) {
        let spread: Vec<u32> = local
            .counted
            .iter()
            .copied()
            .filter(|c| self.compiled.topology.counter(*c).kind == Kind::Spread)
            .collect();
        let mut shares = vec![0_u32; open.len()];
        // Without spreads all pods that may share a domain stay together.
        let together = spread.is_empty() && local.spreads.is_empty();
        let mut left = rest.left();
        while left > 0 {
            let full = |d: usize| {
                self.caps.get(&(rest.origin, local.key, d)).is_some_and(|cap| shares[d] >= *cap)
            };
            let allowed = (0..open.len())
                .filter(|d| open[*d].is_some() && !full(*d) && self.allows(local, open, *d));
            let best = allowed.min_by_key(|d| {
                let counted: i64 =
                    spread.iter().map(|c| self.there[*c as usize][*d] + self.most(*c, *d)).sum();
                let load = self.load[local.key][*d];
                if together { (0, open[*d], load, *d) } else { (counted, None, load, *d) }
            });
            let Some(domain) = best else { break };
            let alone = local.far.iter().any(|far| far.own);
            let cap = self.caps.get(&(rest.origin, local.key, domain)).copied().unwrap_or(u32::MAX);
            let some = if together && !alone { left } else { 1 };
            let count = some.min(cap - shares[domain]);
            self.record(local, &[domain], count);
            shares[domain] += count;
            left -= count;
        }
        let floor = if rest.pinned.is_empty() { balance(local, open, &shares) } else { 0 };
        for (domain, count) in shares.into_iter().enumerate().filter(|(_, count)| *count > 0) {
            let mut piece = rest.clone();
            piece.demands.clear();
            piece.floor = floor;
            rest.take(count, |demand, taken| piece.demands.push((demand, taken)));
            self.pin(&mut piece, local.key, &[domain]);
            next.push(piece);
        }
        if rest.left() > 0 {
            self.block(&mut rest, local);
            next.push(rest);
        }
    }

    /// Pins one planned pod to a domain where those that want to be near it can go.
    fn invite(&mut self, local: &Local, open: &[Option<i64>]) {
        for near in &local.near {
            if self.starts(near) {
                continue;
            }
            let counter = near.counter as usize;
            let some = |planner: &Self, d: usize| {
                open[d].is_some()
                    && (planner.there[counter][d] > 0 || planner.least(near.counter, d, None) > 0)
            };
            if (0..open.len() - 1).any(|d| some(self, d)) {
                continue;
            }
            let domains = 0..open.len() - 1;
            let found = self.out.iter().position(|host| {
                host.left() > 0
                    && host.blocked.is_none()
                    && host.rules.matched.contains(&near.counter)
            });
            let Some(at) = found else { continue };
            let host = self.out[at].clone();
            let theirs = self.open(&host, local.key);
            let Some(guests) = self.local(&host, local.key) else { continue };
            let domain = domains
                .filter(|d| theirs[*d].is_some() && open[*d].is_some())
                .filter(|d| local.near.iter().all(|n| n.counter == near.counter || self.has(n, *d)))
                .filter(|d| self.allows(&guests, &theirs, *d))
                .min_by_key(|d| (theirs[*d], self.load[local.key][*d], *d));
            let Some(domain) = domain else { continue };
            let mut one = host;
            one.demands.clear();
            self.out[at].take(1, |demand, taken| one.demands.push((demand, taken)));
            self.record(&guests, &[domain], 1);
            self.pin(&mut one, local.key, &[domain]);
            self.out.push(one);
        }
    }

    /// Counts pods that go to one of `domains`.
    fn record(&mut self, local: &Local, domains: &[usize], pods: u32) {
        let pods = i64::from(pods);
        for counter in &local.counted {
            let planned = &mut self.planned[*counter as usize];
            let at = planned.iter().position(|p| p.admission == local.admission);
            let at = at.unwrap_or_else(|| {
                let zeros = vec![0; self.there[*counter as usize].len()];
                let (least, most) = (zeros.clone(), zeros);
                planned.push(Planned { admission: local.admission, least, most });
                planned.len() - 1
            });
            for domain in domains {
                planned[at].most[*domain] += pods;
                if domains.len() == 1 {
                    planned[at].least[*domain] += pods;
                }
            }
        }
        for far in &local.far {
            for domain in domains {
                self.repels[far.counter as usize][*domain] += pods;
            }
        }
        for domain in domains {
            self.load[local.key][*domain] += pods;
        }
    }

    fn pin(&mut self, shape: &mut Shape, key: usize, domains: &[usize]) {
        let of = &self.compiled.topology.keys[key];
        let absent = of.domains.len();
        let kept = |domain: u32| {
            domains.contains(&if domain == ABSENT { absent } else { domain as usize })
        };
        if let [domain] = domains {
            shape.pinned.push((key, *domain));
            shape.size = shape.left();
        }
        let known = (shape.columns, shape.nodes, key, domains.to_vec());
        (shape.columns, shape.nodes) = *self.pinned.entry(known).or_insert_with(|| {
            let columns = &self.compiled.offers.columns;
            let open = |c: usize| of.of(c, columns[c].pool).any(kept);
            let columns = self.compiled.sets.narrow(shape.columns, open);
            let nodes = self.compiled.sets.narrow(shape.nodes, |n| kept(of.of_node[n]));
            (columns, nodes)
        });
        if !of.choices.is_empty() {
            choose(self.compiled, shape, key, domains);
        }
    }

    fn block(&mut self, shape: &mut Shape, local: &Local) {
        let key = self.compiled.topology.keys[local.key].name.to_string();
        shape.blocked = Some(if !local.near.is_empty() {
            Reason::PodAffinity { key }
        } else if local.spreads.is_empty() {
            Reason::PodAntiAffinity { key }
        } else {
            Reason::Spread { key }
        });
        let (columns, nodes) =
            (self.compiled.offers.columns.len(), self.compiled.problem.nodes.len());
        shape.columns = self.compiled.sets.add(FixedBitSet::with_capacity(columns));
        shape.nodes = self.compiled.sets.add(FixedBitSet::with_capacity(nodes));
    }
}

/// Has nodes take one of `domains` where their pool leaves them the choice.
fn choose(compiled: &mut Compiled<'_>, shape: &mut Shape, key: usize, domains: &[usize]) {
    let key = &compiled.topology.keys[key];
    let mut columns = compiled.sets.get(shape.columns).ones();
    if columns.all(|column| key.of_column[column] != UNKNOWN) {
        return;
    }
    let named = || key.domains.iter().enumerate();
    let wanted = if domains.contains(&key.domains.len()) {
        // Nodes without the label will do as well.
        let out = named().filter(|(at, _)| !domains.contains(at));
        Requirement::none_of(out.map(|(_, value)| Arc::clone(value)))
    } else {
        let within = named().filter(|(at, _)| domains.contains(at));
        Requirement::one_of(within.map(|(_, value)| Arc::clone(value)))
    };
    let narrowed = shape.alternatives.iter().map(|alternative| {
        let mut both = alternative.clone();
        both.insert(&key.name, wanted.clone());
        both
    });
    shape.alternatives = narrowed.collect();
    shape.custom = true;
    // An offering may have been for other values only.
    let columns = compiled.sets.get(shape.columns).ones();
    let meets = |column: &usize| {
        shape.alternatives.iter().any(|alternative| compiled.column_meets(*column, alternative))
    };
    let kept: BTreeSet<usize> = columns.filter(meets).collect();
    shape.columns = compiled.sets.narrow(shape.columns, |column| kept.contains(&column));
}

/// Pods that each domain has at least, whoever shares so many out under one spread over domains that
/// have none yet; 0 where that is not the whole story.
fn balance(local: &Local, open: &[Option<i64>], shares: &[u32]) -> u32 {
    let [(spread, there)] = &local.spreads[..] else { return 0 };
    let named = open.len() - 1;
    let empty = there.iter().zip(open).all(|(there, open)| match there {
        None => true,
        Some(count) => *count == 0 && open.is_some(),
    });
    if !empty || !spread.own {
        return 0;
    }
    let domains = i64::try_from(open[..named].iter().flatten().count()).unwrap_or(i64::MAX);
    let pods: i64 = shares.iter().map(|n| i64::from(*n)).sum();
    // The others have at most `skew` more than the emptiest.
    let above = pods.saturating_sub(spread.skew.saturating_mul(domains - 1)).max(0);
    u32::try_from((above + domains - 1) / domains.max(1)).unwrap_or(0)
}
