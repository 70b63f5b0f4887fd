//! Filling nodes that exist or are on their way.

use super::compile::{Compiled, Shape};
use super::host::{Host, State};
use super::problem::NodeSlot;
use super::solution::Placement;
use super::topology::Kind;

/// Nodes whose greatest room is kept together: few enough that most blocks can be skipped, many
/// enough that looking at the blocks is cheap.
const BLOCK: usize = 32;

/// The greatest free room of each block of nodes, in the order in which they are filled. Full nodes,
/// which are most of a cluster, are then passed over together.
#[derive(Debug)]
pub(super) struct Blocks {
    greatest: Vec<Vec<i64>>,
    nodes: usize,
}

impl Blocks {
    /// Of nodes with this free room.
    pub(super) fn new<'f>(free: impl Iterator<Item = &'f Vec<i64>>) -> Self {
        let mut blocks = Self { greatest: Vec::new(), nodes: 0 };
        for free in free {
            if blocks.nodes.is_multiple_of(BLOCK) {
                blocks.greatest.push(free.clone());
            } else if let Some(most) = blocks.greatest.last_mut() {
                most.iter_mut().zip(free).for_each(|(most, free)| *most = (*most).max(*free));
            }
            blocks.nodes += 1;
        }
        blocks
    }

    /// Positions in the order of the nodes that may have room for what is asked. A node that has
    /// been filled since may have less.
    pub(super) fn with_room<'b>(&'b self, asked: &'b [i64]) -> impl Iterator<Item = usize> + 'b {
        let blocks = self.greatest.iter().enumerate();
        let open = blocks.filter(|(_, most)| times(asked, most, 1) > 0);
        open.flat_map(|(block, _)| block * BLOCK..self.nodes.min((block + 1) * BLOCK))
    }
}

/// Room of a node while it is filled.
struct Room {
    index: usize,
    free: Vec<i64>,
    state: State,
}

/// Places as much as fits, highest priority and largest pods first, on nodes that take pods at
/// once before those on their way, by name.
pub(super) fn fill(compiled: &mut Compiled<'_>) -> Vec<Placement> {
    let problem = compiled.problem;
    let mut rooms: Vec<Room> = filling_order(&problem.nodes)
        .into_iter()
        .map(|index| Room {
            index,
            free: compiled.free(index),
            state: State::of_node(compiled, &compiled.ports, index),
        })
        .collect();
    let blocks = Blocks::new(rooms.iter().map(|room| &room.free));
    let mut placements = Vec::new();
    // Pods that want to be near others come after those.
    for guests in [false, true] {
        for s in 0..compiled.shapes.len() {
            if compiled.shapes[s].host.needs.is_empty() == guests || rooms.is_empty() {
                continue;
            }
            if compiled.shapes[s].rules.spreads.iter().any(|spread| spread.key.is_none()) {
                level(compiled, s, &mut rooms, &mut placements);
                continue;
            }
            let asked = compiled.shapes[s].request.clone();
            for at in blocks.with_room(&asked) {
                let room = &mut rooms[at];
                let left = compiled.shapes[s].left();
                if left == 0 {
                    break;
                }
                let count = fits(compiled, &compiled.shapes[s], &room.free, left, room.index);
                let count = room.state.fit(&compiled.shapes[s].host, count);
                if count == 0 {
                    continue;
                }
                let host = compiled.shapes[s].host.clone();
                put(compiled, s, &host, room, count, &mut placements);
            }
        }
    }
    placements.sort_unstable();
    placements
}

/// Nodes that take pods at once before those on their way, by name.
pub(super) fn filling_order(nodes: &[NodeSlot]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..nodes.len()).collect();
    order.sort_by_key(|at| (!nodes[*at].initialized, &nodes[*at].name, *at));
    order
}

/// How many times `asked` fits into `free`, at most `most` times.
pub(super) fn times(asked: &[i64], free: &[i64], most: u32) -> u32 {
    let mut fit = i64::from(most);
    for (asked, free) in asked.iter().zip(free) {
        if *asked > 0 {
            if free < asked {
                return 0;
            }
            fit = fit.min(free / asked);
        }
    }
    u32::try_from(fit).unwrap_or(0)
}

/// How many pods of a shape the node's room takes.
fn fits(compiled: &Compiled<'_>, shape: &Shape, free: &[i64], left: u32, node: usize) -> u32 {
    let most = times(&shape.request, free, left);
    if most == 0 || !compiled.sets.get(shape.nodes).contains(node) { 0 } else { most }
}

fn put(
    compiled: &mut Compiled<'_>,
    s: usize,
    host: &Host,
    room: &mut Room,
    count: u32,
    placements: &mut Vec<Placement>,
) {
    let shape = &mut compiled.shapes[s];
    for (free, asked) in room.free.iter_mut().zip(&shape.request) {
        *free -= asked * i64::from(count);
    }
    room.state.add(host, count);
    let node = room.index;
    shape.take(count, |demand, count| placements.push(Placement { node, demand, count }));
}

/// Places pods of a spread over host names where the fewest are, as long as the skew to the node
/// with the fewest of all allows it. New nodes come later, so they do not count.
fn level(
    compiled: &mut Compiled<'_>,
    s: usize,
    rooms: &mut [Room],
    placements: &mut Vec<Placement>,
) {
    let shape = compiled.shapes[s].clone();
    let spreads: Vec<_> =
        shape.rules.spreads.iter().filter(|spread| spread.key.is_none()).collect();
    // Who is bound does not mind any more.
    let mut bound = shape.host.clone();
    bound.caps.retain(|(counter, _)| spreads.iter().all(|spread| spread.counter != *counter));
    while compiled.shapes[s].left() > 0 {
        let mut host = shape.host.clone();
        for spread in &spreads {
            let counts = rooms.iter().filter(|room| compiled.counts_on(&shape, spread, room.index));
            let counts: Vec<i64> = counts.map(|room| room.state.count(spread.counter)).collect();
            let fewest = counts.iter().min().copied().unwrap_or(0);
            let fewest = if counts.len() < spread.min_domains { 0 } else { fewest };
            for (counter, cap) in &mut host.caps {
                if *counter == spread.counter
                    && compiled.topology.counter(*counter).kind == Kind::Spread
                {
                    *cap = spread.skew + fewest;
                }
            }
        }
        let count_of =
            |room: &Room| spreads.iter().map(|s| room.state.count(s.counter)).sum::<i64>();
        let mut order: Vec<usize> = (0..rooms.len()).collect();
        order.sort_by_key(|at| count_of(&rooms[*at]));
        let mut placed = false;
        for at in order {
            let room = &mut rooms[at];
            if compiled.shapes[s].left() == 0 {
                break;
            }
            let one = fits(compiled, &shape, &room.free, 1, room.index);
            if room.state.fit(&host, one) == 1 {
                put(compiled, s, &bound, room, 1, placements);
                placed = true;
            }
        }
        if !placed {
            break;
        }
    }
}
