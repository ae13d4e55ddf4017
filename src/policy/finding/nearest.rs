//! What was probably meant by a text that is none of those that are known.

/// The candidate that was probably meant, if one is near enough.
#[must_use]
pub fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nearest_few(text, candidates, 1).pop()
}

/// Longest text that is compared, in bytes: a longer one is no typing mistake, and a comparison is quadratic.
const MAX_BYTES: usize = 64;
/// Most comparisons, of those that look most alike: a policy may have a million names.
const MAX_COMPARISONS: usize = 20_000;

/// The candidates that were probably meant, the nearest first and of equally near ones the first, at most so many.
#[must_use]
pub fn nearest_few<'a>(
    text: &str,
    candidates: impl IntoIterator<Item = &'a str>,
    most: usize,
) -> Vec<&'a str> {
    if text.len() > MAX_BYTES || most == 0 {
        return Vec::new();
    }
    let lower = text.to_lowercase();
    let (letters, length) = (Letters::of(&lower), lower.chars().count());
    // Of a short text something must be left, or any letter would be near any other.
    let too_far = |candidate: &str| ((candidate.len() / 3).max(1) + 1).min(length);
    let candidates = candidates.into_iter().enumerate().filter(|(_, candidate)| candidate.len() <= MAX_BYTES);
    let mut alike: Vec<(usize, usize, &str)> = candidates
        .map(|(at, candidate)| (letters.least_distance(candidate), at, candidate))
        .filter(|(least, _, candidate)| *least < too_far(candidate))
        .collect();
    alike.sort_unstable_by_key(|(least, at, _)| (*least, *at));
    let mut near: Vec<(usize, usize, &str)> = Vec::with_capacity(most + 1);
    for (least, at, candidate) in alike.into_iter().take(MAX_COMPARISONS) {
        if near.get(most - 1).is_some_and(|(distance, ..)| least > *distance) {
            break;
        }
        let distance = strsim::damerau_levenshtein(&lower, &candidate.to_lowercase());
        if distance < too_far(candidate) {
            near.push((distance, at, candidate));
            near.sort_unstable_by_key(|(distance, at, _)| (*distance, *at));
            near.truncate(most);
        }
    }
    near.into_iter().map(|(.., candidate)| candidate).collect()
}

/// How often each letter is in a text, as far as the text is ASCII.
struct Letters {
    counts: [i8; 128],
    /// Of the whole text; nothing if it is not ASCII.
    length: Option<usize>,
}

impl Letters {
    /// `lower` has at most [`MAX_BYTES`] bytes, or is not ASCII: what is none in lower case was none before.
    fn of(lower: &str) -> Self {
        let mut counts = [0; 128];
        for byte in lower.bytes() {
            if let Some(count) = counts.get_mut(usize::from(byte)) {
                *count += 1;
            }
        }
        Self { counts, length: lower.is_ascii().then_some(lower.len()) }
    }

    /// At most the distance to a candidate in lower case: each edit changes one letter, or swaps two.
    fn least_distance(&self, candidate: &str) -> usize {
        let Some(length) = self.length.filter(|_| candidate.is_ascii()) else { return 0 };
        let mut left = self.counts;
        // Letters of the candidate that are not in the text.
        let mut new = 0;
        for byte in candidate.bytes() {
            if let Some(left) = left.get_mut(usize::from(byte.to_ascii_lowercase())) {
                *left -= 1;
                new += usize::from(*left < 0);
            }
        }
        // Those that both have are as many from either side, and each of the others has to go or to come.
        let common = candidate.len() - new;
        new.max(length.saturating_sub(common))
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn near_misses_are_found_and_far_ones_are_not() {
        let keys = ["scopesSupported", "baselineClientScopes", "forbiddenScopes"];
        assert_eq!(nearest("scopeSupported", keys), Some("scopesSupported"));
        assert_eq!(nearest("scopessupported", keys), Some("scopesSupported"));
        assert_eq!(nearest("basline_client_scopes", keys), Some("baselineClientScopes"));
        assert_eq!(nearest("color", keys), None);
        assert_eq!(nearest("a", ["b"]), None);
        assert_eq!(nearest("", ["b"]), None);
        assert_eq!(nearest(&"s".repeat(100_000), keys), None);
    }

    /// All compared, and sorted by distance.
    fn slowly<'a>(text: &str, candidates: &[&'a str], most: usize) -> Vec<&'a str> {
        let lower = text.to_lowercase();
        let distances = candidates
            .iter()
            .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), *candidate));
        let mut near: Vec<_> = distances
            .filter(|(distance, candidate)| {
                *distance <= (candidate.len() / 3).max(1) && *distance < lower.chars().count()
            })
            .collect();
        near.sort_by_key(|(distance, _)| *distance);
        near.into_iter().take(most).map(|(_, candidate)| candidate).collect()
    }

    proptest! {
        #[test]
        fn what_is_skipped_is_not_nearer(
            text in "[abcA\u{e9}\u{130}:]{0,12}",
            candidates in vec("[abcA\u{e9}\u{130}:]{0,12}", 0..30),
            most in 1..4usize,
        ) {
            let candidates: Vec<&str> = candidates.iter().map(String::as_str).collect();
            prop_assert_eq!(nearest_few(&text, candidates.iter().copied(), most), slowly(&text, &candidates, most));
        }
    }

    #[test]
    fn names_of_a_large_policy_are_not_all_compared() {
        let names: Vec<String> =
            (0..50_000).map(|at| format!("https://service-{at:06}.example.com")).collect();
        let near = |text: &str| nearest_few(text, names.iter().map(String::as_str), 3);
        assert_eq!(near("https://service-049999.exampel.com")[0], "https://service-049999.example.com");
        // More than are compared are as likely as these.
        let reversed: String = names[0].chars().rev().collect();
        assert!(near(&reversed).is_empty());
    }
}
