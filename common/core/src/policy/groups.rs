//! Who is in which groups: those of certificates and those of the file together.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use crate::identity::Principal;

/// The groups of the file; without cycles.
#[derive(Debug, Default)]
pub(super) struct Groups {
    pub(super) names: Vec<Arc<str>>,
    pub(super) by_name: BTreeMap<Arc<str>, u32>,
    /// By member: the group and the line that says so.
    pub(super) of_principal: BTreeMap<Principal, Vec<(u32, u32)>>,
    /// By group: those that contain it, and the line that says so.
    pub(super) of_group: Vec<Vec<(u32, u32)>>,
}

/// Why somebody is in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The certificate says so.
    Certificate,
    /// This line of the file does, directly or because of another group.
    Line(u32, Option<Arc<str>>),
}

impl Groups {
    /// The number of a name, new or known.
    pub(super) fn intern(&mut self, name: &str) -> u32 {
        if let Some(&known) = self.by_name.get(name) {
            return known;
        }
        let (name, number): (Arc<str>, _) = (name.into(), super::nesting::index(self.names.len()));
        self.names.push(Arc::clone(&name));
        self.of_group.push(Vec::new());
        self.by_name.insert(name, number);
        number
    }

    /// All groups of somebody whose certificate names `certified`. Whoever is in a group is also
    /// in those that contain it, wherever the membership comes from.
    pub(super) fn of(
        &self,
        principal: &Principal,
        certified: &[String],
    ) -> BTreeMap<Arc<str>, Origin> {
        let mut groups = BTreeMap::new();
        let mut open: Vec<u32> = Vec::new();
        for name in certified {
            let number = self.by_name.get(name.as_str()).copied();
            let name = number.map_or_else(|| name.as_str().into(), |number| self.name(number));
            groups.insert(name, Origin::Certificate);
            open.extend(number);
        }
        for &(group, line) in self.of_principal.get(principal).into_iter().flatten() {
            if let Entry::Vacant(entry) = groups.entry(self.name(group)) {
                entry.insert(Origin::Line(line, None));
                open.push(group);
            }
        }
        self.follow(open, &mut groups);
        groups
    }

    /// A group and all that contain it.
    pub(super) fn around(&self, name: &str) -> BTreeMap<Arc<str>, Origin> {
        let mut groups = BTreeMap::new();
        if let Some((name, &number)) = self.by_name.get_key_value(name) {
            groups.insert(Arc::clone(name), Origin::Certificate);
            self.follow(vec![number], &mut groups);
        }
        groups
    }

    /// Adds all groups that contain those in `open`.
    fn follow(&self, mut open: Vec<u32>, groups: &mut BTreeMap<Arc<str>, Origin>) {
        while let Some(inner) = open.pop() {
            for &(outer, line) in &self.of_group[inner as usize] {
                if let Entry::Vacant(entry) = groups.entry(self.name(outer)) {
                    entry.insert(Origin::Line(line, Some(self.name(inner))));
                    open.push(outer);
                }
            }
        }
    }

    fn name(&self, number: u32) -> Arc<str> {
        Arc::clone(&self.names[number as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_s_group_brings_those_of_the_file_that_contain_it() {
        let mut groups = Groups::default();
        let (hr, staff) = (groups.intern("hr"), groups.intern("staff"));
        groups.of_group[hr as usize].push((staff, 3));
        let erin = Principal::parse("erin@example.com").unwrap();
        groups.of_principal.insert(erin.clone(), vec![(hr, 2)]);
        let of = |principal, certified: &[&str]| {
            let certified: Vec<String> = certified.iter().map(ToString::to_string).collect();
            groups.of(principal, &certified)
        };
        let through = Origin::Line(3, Some("hr".into()));
        assert_eq!(
            of(&erin, &[]),
            [
                ("hr".into(), Origin::Line(2, None)),
                ("staff".into(), through.clone())
            ]
            .into()
        );
        let other = Principal::parse("mallory").unwrap();
        assert_eq!(
            of(&other, &["hr", "guests"]),
            [
                ("guests".into(), Origin::Certificate),
                ("hr".into(), Origin::Certificate),
                ("staff".into(), through)
            ]
            .into()
        );
        assert!(of(&other, &[]).is_empty());
    }
}
