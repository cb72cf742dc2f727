//! Against the definition as RFC 6962 writes it down, and against published vectors.

use proptest::prelude::*;

use super::*;

/// MTH of RFC 6962, section 2.1, word by word.
pub(crate) fn naive_root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Hash::empty(),
        [one] => *one,
        many => {
            let (left, right) = many.split_at(below(many.len()));
            Hash::node(naive_root(left), naive_root(right))
        }
    }
}

/// The largest power of two smaller than `n`.
fn below(n: usize) -> usize {
    let mut k = 1;
    while k * 2 < n {
        k *= 2;
    }
    k
}

/// PATH of section 2.1.1.
fn naive_path(m: usize, leaves: &[Hash]) -> Vec<Hash> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let k = below(leaves.len());
    let (left, right) = leaves.split_at(k);
    let (mut path, sibling) = if m < k {
        (naive_path(m, left), right)
    } else {
        (naive_path(m - k, right), left)
    };
    path.push(naive_root(sibling));
    path
}

/// SUBPROOF of section 2.1.2.
fn naive_subproof(m: usize, leaves: &[Hash], whole: bool) -> Vec<Hash> {
    if m == leaves.len() {
        return if whole {
            Vec::new()
        } else {
            vec![naive_root(leaves)]
        };
    }
    let k = below(leaves.len());
    let (left, right) = leaves.split_at(k);
    let (mut proof, other) = if m <= k {
        (naive_subproof(m, left, whole), right)
    } else {
        (naive_subproof(m - k, right, false), left)
    };
    proof.push(naive_root(other));
    proof
}

fn at(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

fn leaves(n: usize) -> Vec<Hash> {
    (0..n).map(|i| Hash::leaf(&i.to_be_bytes())).collect()
}

pub(crate) fn frontier(leaves: &[Hash]) -> Frontier {
    let mut frontier = Frontier::default();
    leaves.iter().for_each(|leaf| frontier.push(*leaf));
    frontier
}

fn collect(ranges: Vec<Range>, leaves: &[Hash]) -> Vec<Hash> {
    let mut collector = Collector::of(ranges);
    for (index, leaf) in leaves.iter().enumerate() {
        collector.leaf(index as u64, *leaf);
    }
    collector.finish().unwrap()
}

fn hash(hex: &str) -> Hash {
    serde_json::from_value(hex.into()).unwrap()
}

/// Inputs and roots of the tests of Google's Certificate Transparency implementation, which other
/// implementations repeat.
const INPUTS: [&str; 8] = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
];
const ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

fn inputs() -> Vec<Hash> {
    INPUTS
        .map(|input| Hash::leaf(&hex::decode(input).unwrap()))
        .to_vec()
}

#[test]
fn published_roots() {
    let inputs = inputs();
    for (size, root) in ROOTS.iter().enumerate() {
        assert_eq!(frontier(&inputs[..size]).root(), hash(root), "{size}");
    }
}

#[test]
fn published_proofs() {
    let inputs = inputs();
    let root = |size: usize| (size as u64, hash(ROOTS[size]));
    let first = [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ]
    .map(hash);
    assert_eq!(collect(inclusion_ranges(0, 8).unwrap(), &inputs), first);
    verify_inclusion(inputs[0], 0, root(8), &first).unwrap();
    assert_eq!(collect(consistency_ranges(1, 8).unwrap(), &inputs), first);
    verify_consistency(root(1), root(8), &first).unwrap();
    let six = [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]
    .map(hash);
    assert_eq!(collect(consistency_ranges(6, 8).unwrap(), &inputs), six);
    verify_consistency(root(6), root(8), &six).unwrap();
}

/// Every pair of sizes, every leaf: made as defined, and accepted.
#[test]
fn proofs_of_all_small_trees() {
    let all = leaves(40);
    for size in 1..=all.len() {
        let tree = &all[..size];
        let root = (size as u64, naive_root(tree));
        for index in 0..size {
            let proof = collect(inclusion_ranges(index as u64, root.0).unwrap(), tree);
            assert_eq!(proof, naive_path(index, tree));
            verify_inclusion(tree[index], index as u64, root, &proof).unwrap();
        }
        assert_eq!(inclusion_ranges(root.0, root.0), None);
        for old in 1..=size {
            let proof = collect(consistency_ranges(old as u64, root.0).unwrap(), tree);
            assert_eq!(proof, naive_subproof(old, tree, true));
            let older = (old as u64, naive_root(&tree[..old]));
            verify_consistency(older, root, &proof).unwrap();
        }
        let nothing = (0, Hash::empty());
        verify_consistency(nothing, root, &[]).unwrap();
        assert_eq!(consistency_ranges(root.0 + 1, root.0), None);
    }
}

/// Any proof for any other place, size, root or leaf, or with another number of hashes.
#[test]
fn no_proof_serves_for_another_statement() {
    let all = leaves(20);
    let root = |size: u64| (size, naive_root(&all[..at(size)]));
    for size in 1..=20u64 {
        let tree = &all[..at(size)];
        for index in 0..size {
            let proof = naive_path(at(index), tree);
            let leaf = tree[at(index)];
            let holds = |leaf, index, tree, proof: &[Hash]| {
                verify_inclusion(leaf, index, tree, proof).is_ok()
            };
            for other in (0..size + 2).filter(|other| *other != index) {
                assert!(!holds(leaf, other, root(size), &proof));
            }
            assert!(!holds(Hash::leaf(b"other"), index, root(size), &proof));
            for other in (1..=20).filter(|other| *other != size) {
                assert!(!holds(leaf, index, root(other), &proof));
            }
            let longer = [&proof[..], &[leaf]].concat();
            assert!(!holds(leaf, index, root(size), &longer));
            if let Some((_, shorter)) = proof.split_last() {
                assert!(!holds(leaf, index, root(size), shorter));
            }
        }
        for old in 1..=size {
            let proof = naive_subproof(at(old), tree, true);
            let (old, new) = (root(old), root(size));
            let longer = [&proof[..], &[old.1]].concat();
            assert!(verify_consistency(old, new, &longer).is_err());
            if let Some((_, shorter)) = proof.split_last() {
                assert!(verify_consistency(old, new, shorter).is_err());
            }
            let forged = (old.0, Hash::leaf(b"other"));
            assert!(verify_consistency(forged, new, &proof).is_err());
            assert!(verify_consistency(old, (new.0, forged.1), &proof).is_err());
            assert!(old.0 == new.0 || verify_consistency(new, old, &proof).is_err());
        }
    }
    let forged = (0, Hash::leaf(b"other"));
    assert_eq!(
        verify_consistency(forged, root(3), &[]),
        Err(NotProved::Root)
    );
}

#[test]
fn a_frontier_can_be_taken_up_again() {
    let all = leaves(100);
    for cut in 0..all.len() {
        let half = frontier(&all[..cut]);
        let again = Frontier::from_parts(half.size(), half.peaks().to_vec());
        let mut again = again.unwrap();
        all[cut..].iter().for_each(|leaf| again.push(*leaf));
        assert_eq!(again.root(), naive_root(&all));
    }
    for (size, peaks) in [(0, 1), (1, 0), (3, 1), (4, 2), (MAX_SIZE + 1, 2)] {
        let peaks = vec![Hash::empty(); peaks];
        assert_eq!(Frontier::from_parts(size, peaks), None, "{size}");
    }
}

#[test]
fn a_collector_that_missed_a_leaf_has_no_proof() {
    let all = leaves(7);
    let mut collector = Collector::of(inclusion_ranges(2, 7).unwrap());
    for (index, leaf) in all.iter().enumerate().filter(|(index, _)| *index != 5) {
        collector.leaf(index as u64, *leaf);
    }
    assert_eq!(collector.finish(), None);
}

proptest! {
    #[test]
    fn larger_trees(size in 1usize..600, a: prop::sample::Index, b: prop::sample::Index) {
        let all = leaves(size);
        let root = (size as u64, frontier(&all).root());
        prop_assert_eq!(root.1, naive_root(&all));
        let index = a.index(size);
        let proof = collect(inclusion_ranges(index as u64, root.0).unwrap(), &all);
        prop_assert_eq!(&proof, &naive_path(index, &all));
        prop_assert_eq!(verify_inclusion(all[index], index as u64, root, &proof), Ok(()));
        let old = 1 + b.index(size);
        let proof = collect(consistency_ranges(old as u64, root.0).unwrap(), &all);
        prop_assert_eq!(&proof, &naive_subproof(old, &all, true));
        let older = (old as u64, naive_root(&all[..old]));
        prop_assert_eq!(verify_consistency(older, root, &proof), Ok(()));
        for at in 0..proof.len() {
            let mut changed = proof.clone();
            changed[at].0[3] ^= 1;
            let judged = verify_consistency(older, root, &changed);
            prop_assert_eq!(judged, Err(NotProved::Root));
        }
    }

    /// Whatever is claimed and sent: no panic, no endless loop, and a proof is short.
    #[test]
    fn any_numbers_are_survived(
        index: u64, size: u64, old: u64,
        proof in prop::collection::vec(any::<[u8; 32]>(), 0..70),
    ) {
        let proof: Vec<Hash> = proof.into_iter().map(Hash).collect();
        let root = Hash::empty();
        prop_assert!(verify_inclusion(root, index, (size, root), &proof).is_err());
        let held = verify_consistency((old, root), (size, root), &proof).is_ok();
        prop_assert!(!held || proof.is_empty());
        let ranges = inclusion_ranges(index % size.max(1), size);
        prop_assert!(ranges.is_none_or(|ranges| ranges.len() <= 64));
        let ranges = inclusion_ranges(index % MAX_SIZE, MAX_SIZE);
        prop_assert!(ranges.is_some_and(|ranges| ranges.len() <= MAX_PROOF));
    }
}
