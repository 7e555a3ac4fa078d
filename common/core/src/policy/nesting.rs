//! Names that contain names, as groups and networks do, and prefixes that contain prefixes.

/// A chain of names that leads back to its first, when there is one: `inner[n]` are those in `n`.
pub(super) fn cycle(inner: &[Vec<u32>]) -> Option<Vec<u32>> {
    let mut state = vec![State::New; inner.len()];
    for root in 0..index(inner.len()) {
        if state[root as usize] != State::New {
            continue;
        }
        state[root as usize] = State::Open;
        // The chain from the root, each with how many of its inner names were followed. No
        // recursion: how deep an operator nests is no reason for a stack to overflow.
        let mut path = vec![(root, 0)];
        while let Some((name, followed)) = path.last_mut() {
            let Some(&next) = inner[*name as usize].get(*followed) else {
                state[*name as usize] = State::Done;
                path.pop();
                continue;
            };
            *followed += 1;
            match state[next as usize] {
                State::Done => {}
                State::New => {
                    state[next as usize] = State::Open;
                    path.push((next, 0));
                }
                State::Open => {
                    let chain = path.iter().map(|(name, _)| *name);
                    let mut chain: Vec<u32> = chain.skip_while(|name| *name != next).collect();
                    chain.push(next);
                    return Some(chain);
                }
            }
        }
    }
    None
}

/// The innermost other span that contains each, or [`NOBODY`]. Spans are inclusive, distinct,
/// nested or disjoint, and ordered by their start, the longer first.
pub(super) fn parents<A: Ord + Copy>(spans: &[(A, A)]) -> Vec<u32> {
    let mut open: Vec<u32> = Vec::new();
    let mut parents = Vec::with_capacity(spans.len());
    for (n, (start, _)) in spans.iter().enumerate() {
        while open
            .last()
            .is_some_and(|&outer| spans[outer as usize].1 < *start)
        {
            open.pop();
        }
        parents.push(open.last().copied().unwrap_or(NOBODY));
        open.push(index(n));
    }
    parents
}

/// A place in a list of a policy; a file with four thousand million entries is refused by its size.
pub(super) fn index(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(NOBODY)
}

/// No index.
pub(super) const NOBODY: u32 = u32::MAX;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Open,
    Done,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cycle_is_told_from_its_first_name_back_to_it() {
        assert_eq!(cycle(&[vec![1, 2], vec![2], vec![]]), None);
        assert_eq!(cycle(&[vec![1], vec![2], vec![1]]), Some(vec![1, 2, 1]));
        assert_eq!(cycle(&[vec![], vec![1]]), Some(vec![1, 1]));
    }

    #[test]
    fn a_chain_of_a_million_names_is_followed_to_its_end() {
        let mut chain: Vec<Vec<u32>> = (1..1_000_000).map(|next| vec![next]).collect();
        chain.push(Vec::new());
        assert_eq!(cycle(&chain), None);
        chain[999_999].push(0);
        assert_eq!(cycle(&chain).map(|names| names.len()), Some(1_000_001));
    }

    #[test]
    fn the_parent_is_the_innermost_span_around() {
        let spans = [(0, 99), (0, 9), (5, 5), (20, 29), (200, 209)];
        assert_eq!(parents(&spans), [NOBODY, 0, 1, 0, NOBODY]);
    }
}
