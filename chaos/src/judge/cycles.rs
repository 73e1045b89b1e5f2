//! Cycles in a directed graph.

use std::collections::VecDeque;

/// Groups of more than one node that all reach one another (Tarjan's components), each as one
/// shortest cycle through its first node.
pub(super) fn cycles(edges: &[Vec<usize>]) -> Vec<Vec<usize>> {
    components(edges)
        .into_iter()
        .filter(|component| component.len() > 1)
        .map(|mut component| {
            component.sort_unstable();
            shortest(edges, component[0])
        })
        .collect()
}

/// A shortest way from `start` back to itself; there is one.
fn shortest(edges: &[Vec<usize>], start: usize) -> Vec<usize> {
    let mut from = vec![usize::MAX; edges.len()];
    let mut queue = VecDeque::from([start]);
    while let Some(node) = queue.pop_front() {
        for next in &edges[node] {
            if *next == start {
                let mut way = vec![node];
                while way.last() != Some(&start) {
                    way.push(from[*way.last().expect("it is not empty")]);
                }
                way.reverse();
                return way;
            }
            if from[*next] == usize::MAX {
                from[*next] = node;
                queue.push_back(*next);
            }
        }
    }
    vec![start]
}

/// Tarjan's strongly connected components, with a stack of its own: histories are long.
fn components(edges: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut search = Search {
        index: vec![usize::MAX; edges.len()],
        low: vec![0; edges.len()],
        on_stack: vec![false; edges.len()],
        stack: Vec::new(),
        count: 0,
        found: Vec::new(),
    };
    for root in 0..edges.len() {
        if search.index[root] == usize::MAX {
            search.visit(edges, root);
        }
    }
    search.found
}

struct Search {
    index: Vec<usize>,
    low: Vec<usize>,
    on_stack: Vec<bool>,
    stack: Vec<usize>,
    count: usize,
    found: Vec<Vec<usize>>,
}

impl Search {
    fn visit(&mut self, edges: &[Vec<usize>], root: usize) {
        // Each with the number of its edges that were followed.
        let mut open = vec![(root, 0)];
        self.enter(root);
        while let Some((node, followed)) = open.last_mut() {
            let node = *node;
            if let Some(next) = edges[node].get(*followed).copied() {
                *followed += 1;
                if self.index[next] == usize::MAX {
                    self.enter(next);
                    open.push((next, 0));
                } else if self.on_stack[next] {
                    self.low[node] = self.low[node].min(self.index[next]);
                }
                continue;
            }
            open.pop();
            if let Some((parent, _)) = open.last() {
                self.low[*parent] = self.low[*parent].min(self.low[node]);
            }
            if self.low[node] == self.index[node] {
                self.leave(node);
            }
        }
    }

    fn enter(&mut self, node: usize) {
        self.index[node] = self.count;
        self.low[node] = self.count;
        self.count += 1;
        self.stack.push(node);
        self.on_stack[node] = true;
    }

    fn leave(&mut self, root: usize) {
        let mut component = Vec::new();
        loop {
            let node = self.stack.pop().expect("the root is on the stack");
            self.on_stack[node] = false;
            component.push(node);
            if node == root {
                break;
            }
        }
        self.found.push(component);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_has_no_cycle() {
        assert!(cycles(&[vec![1, 2], vec![3], vec![3], vec![]]).is_empty());
    }

    #[test]
    fn the_shortest_way_back_is_shown() {
        // 0 -> 1 -> 2 -> 3 -> 0 and 2 -> 0
        assert_eq!(cycles(&[vec![1], vec![2], vec![3, 0], vec![0]]), [vec![0, 1, 2]]);
    }

    #[test]
    fn separate_cycles_are_separate() {
        let found = cycles(&[vec![1], vec![0], vec![3], vec![2], vec![]]);
        assert_eq!(found.len(), 2);
    }
}
