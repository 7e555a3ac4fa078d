//! What is kept, what goes, and what happens to a file that is damaged.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt as _;

use super::*;

pub(in crate::certificates) fn seen(name: &str, sessions: u64, at: i64) -> Known {
    Known {
        fingerprint: name.to_owned(),
        certificate: name.as_bytes().to_vec(),
        issuers: vec![b"above".to_vec(), name.as_bytes().to_vec()],
        principal: format!("{name}@example.com"),
        authority: "adit".to_owned(),
        groups: vec!["eng".to_owned()],
        first_seen: at,
        sessions,
        used: (sessions > 0).then(|| Use {
            at,
            source: "192.0.2.1".to_owned(),
        }),
        user_agent: (sessions > 0).then(|| "adit/0.1.0 (linux; laptop)".to_owned()),
        refused: (sessions == 0).then(|| Refusal {
            at,
            reason: "the certificate has expired".to_owned(),
            source: "192.0.2.9".to_owned(),
        }),
    }
}

fn path() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("certificates.db");
    (folder, path)
}

fn names(store: &Store) -> String {
    let names = store
        .all()
        .unwrap()
        .into_iter()
        .map(|known| known.fingerprint);
    names.collect::<Vec<_>>().join(" ")
}

#[test]
fn what_was_written_is_there_after_the_next_start_and_nobody_else_may_read_it() {
    let (folder, path) = path();
    let mut store = Store::open(&path).unwrap();
    store
        .write([seen("a", 1, 10), seen("b", 0, 11)].iter(), 11)
        .unwrap();
    for file in fs::read_dir(folder.path()).unwrap() {
        let mode = file.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    drop(store);
    let expected = [seen("a", 1, 10), seen("b", 0, 11)];
    assert_eq!(Store::open(&path).unwrap().all().unwrap(), expected);
    assert_eq!(
        Store::read_only(&path).unwrap().unwrap().all().unwrap(),
        expected
    );
    assert!(
        Store::read_only(&folder.path().join("none"))
            .unwrap()
            .is_none()
    );
}

#[test]
fn a_copy_has_all_of_it_and_nobody_else_may_read_it() {
    let (folder, path) = path();
    let mut store = Store::open(&path).unwrap();
    store.write([seen("a", 1, 10)].iter(), 10).unwrap();
    let copy = folder.path().join("copy.db");
    store.copy_to(&copy).unwrap();
    let mode = fs::metadata(&copy).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(
        Store::open(&copy).unwrap().all().unwrap(),
        store.all().unwrap()
    );
    // What is there already is not overwritten.
    store.write([seen("b", 1, 11)].iter(), 11).unwrap();
    store.copy_to(&copy).unwrap();
    assert_eq!(names(&Store::open(&copy).unwrap()), "a");
}

#[test]
fn sessions_add_up_and_the_last_word_counts() {
    let mut store = Store::in_memory().unwrap();
    store.write([seen("a", 2, 10)].iter(), 10).unwrap();
    let mut later = seen("a", 1, 20);
    later.user_agent = None;
    later.groups.clear();
    store.write([later, seen("a", 0, 30)].iter(), 30).unwrap();
    let known = store.all().unwrap().remove(0);
    assert_eq!((known.first_seen, known.sessions), (10, 3));
    assert_eq!(known.used.unwrap().at, 20);
    assert_eq!(known.refused.unwrap().at, 30);
    assert_eq!(known.user_agent, seen("a", 1, 0).user_agent);
}

#[test]
fn a_damaged_file_is_set_aside_and_a_new_one_begun() {
    let (folder, path) = path();
    for damage in ["text", "page", "version", "schema"] {
        let mut store = Store::open(&path).unwrap();
        let many: Vec<Known> = (0..200)
            .map(|n| seen(&format!("{damage}{n}"), 1, n))
            .collect();
        store.write(many.iter(), 0).unwrap();
        match damage {
            "version" => store
                .connection
                .pragma_update(None, "user_version", 7)
                .unwrap(),
            "schema" => store
                .connection
                .execute_batch("ALTER TABLE certificate DROP COLUMN groups")
                .unwrap(),
            _ => {}
        }
        drop(store);
        let mut file = fs::File::options()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        match damage {
            "text" => file
                .write_all(b"no database at all, whatever its name says")
                .unwrap(),
            "page" => {
                let length = file.seek(SeekFrom::End(0)).unwrap();
                file.seek(SeekFrom::Start(4096)).unwrap();
                let rubbish = vec![0xa5; usize::try_from(length - 4096).unwrap()];
                file.write_all(&rubbish).unwrap();
            }
            _ => {}
        }
        let mut damaged = Vec::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut damaged).unwrap();
        drop(file);
        let mut store = Store::open(&path).unwrap();
        assert_eq!(names(&store), "", "{damage}");
        assert_eq!(
            fs::read(folder.path().join("certificates.db.damaged")).unwrap(),
            damaged
        );
        store.write([seen("a", 1, 1)].iter(), 1).unwrap();
        drop(store);
        assert_eq!(names(&Store::open(&path).unwrap()), "a");
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_file_that_cannot_be_used_is_left_where_it_is() {
    let (folder, _) = path();
    let error = Store::open(folder.path()).unwrap_err();
    assert!(matches!(error, StoreError::Database(_)), "{error:?}");
    assert!(folder.path().is_dir());
}

#[test]
fn of_too_many_strangers_those_go_first_that_were_refused_the_longest_ago() {
    let mut store = Store::in_memory().unwrap();
    let rows = [
        seen("old", 0, 1),
        seen("new", 0, 3),
        seen("mid", 0, 2),
        seen("in", 1, 0),
    ];
    store.write(rows.iter(), 3).unwrap();
    let transaction = store.connection.transaction().unwrap();
    let limits = Limits {
        strangers: 2,
        rows: 10,
    };
    prune(&transaction, 3, &limits).unwrap();
    transaction.commit().unwrap();
    assert_eq!(names(&store), "in mid new");
}

#[test]
fn of_too_many_certificates_strangers_go_then_what_has_ended_then_what_is_used_least() {
    let order = ["stranger", "ended-1", "ended-2", "idle", "busy"];
    for rows in 0..order.len() {
        let mut store = Store::in_memory().unwrap();
        let all = [
            seen("busy", 1, 90),
            seen("ended-2", 1, 10),
            seen("stranger", 0, 95),
            seen("ended-1", 1, 20),
            seen("idle", 1, 80),
        ];
        store.write(all.iter(), 0).unwrap();
        for (name, ends) in [
            ("busy", 200),
            ("idle", 300),
            ("ended-1", 50),
            ("ended-2", 60),
        ] {
            let sql = "UPDATE certificate SET ends = ?2 WHERE fingerprint = ?1";
            store.connection.execute(sql, params![name, ends]).unwrap();
        }
        let transaction = store.connection.transaction().unwrap();
        let limits = Limits {
            strangers: 10,
            rows: i64::try_from(rows).unwrap(),
        };
        prune(&transaction, 100, &limits).unwrap();
        transaction.commit().unwrap();
        let mut left: Vec<&str> = order[order.len() - rows..].to_vec();
        left.sort_unstable();
        assert_eq!(names(&store), left.join(" "));
    }
}
