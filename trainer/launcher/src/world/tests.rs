use super::*;

const RESOURCES: Resources = Resources { processors: NonZeroUsize::new(6).unwrap(), gpus: 0 };

fn read(options: PlaceArguments, variables: &[(&str, &str)]) -> Result<World, Error> {
    with_resources(options, variables, RESOURCES)
}

fn with_resources(
    options: PlaceArguments,
    variables: &[(&str, &str)],
    resources: Resources,
) -> Result<World, Error> {
    let variable =
        |name: &str| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned());
    World::read(&options, variable, resources)
}

fn world(nodes: usize, node_rank: usize, workers: usize, address: &str, port: u16) -> World {
    let workers = NonZeroUsize::new(workers).unwrap();
    World { nodes, node_rank, workers, master_address: address.to_owned(), master_port: port }
}

/// Worker 1 of a PyTorchJob with a Master, three pods, nprocPerNode 4.
const WORKER: [(&str, &str); 9] = [
    ("MASTER_ADDR", "job-master-0"),
    ("PET_MASTER_ADDR", "job-master-0"),
    ("MASTER_PORT", "23456"),
    ("PET_MASTER_PORT", "23456"),
    ("WORLD_SIZE", "12"),
    ("RANK", "2"),
    ("PET_NODE_RANK", "2"),
    ("PET_NPROC_PER_NODE", "4"),
    ("PET_NNODES", "3"),
];

fn replaced(changes: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    let kept = WORKER.iter().filter(|(name, _)| !changes.iter().any(|(other, _)| other == name));
    kept.chain(changes).copied().collect()
}

#[test]
fn a_pod_of_a_pytorchjob() {
    let read = read(PlaceArguments::default(), &WORKER).unwrap();
    assert_eq!(read, world(3, 2, 4, "job-master-0", 23456));
    assert_eq!((read.rank(3), read.size()), (11, 12));
}

#[test]
fn without_pet_variables_those_of_a_pytorchjob_count() {
    let plain: Vec<_> = WORKER.into_iter().filter(|(name, _)| !name.starts_with("PET_")).collect();
    let options = || PlaceArguments { nproc_per_node: Some(WorkerCount::Auto), ..Default::default() };
    let expected = world(12, 2, 6, "job-master-0", 23456);
    assert_eq!(read(options(), &plain).unwrap(), expected, "one process a pod, as far as the job knows");
    let with_count = [&plain[..], &[("PET_NPROC_PER_NODE", "4")]].concat();
    assert_eq!(read(options(), &with_count).unwrap(), world(3, 2, 6, "job-master-0", 23456));
}

#[test]
fn the_job_counts_pods_where_processes_are_no_number() {
    let auto = replaced(&[("PET_NPROC_PER_NODE", "auto"), ("WORLD_SIZE", "3")]);
    assert_eq!(read(PlaceArguments::default(), &auto).unwrap(), world(3, 2, 6, "job-master-0", 23456));
    let resources = Resources { gpus: 2, ..RESOURCES };
    let on_gpus = with_resources(PlaceArguments::default(), &auto, resources).unwrap();
    assert_eq!(on_gpus.workers.get(), 2);
}

#[test]
fn options_come_first() {
    let options = PlaceArguments {
        nproc_per_node: Some(WorkerCount::Number(NonZeroUsize::new(2).unwrap())),
        nnodes: Some("5:5".into()),
        node_rank: Some(4),
        master_addr: Some("elsewhere".into()),
        master_port: Some(1),
        ..Default::default()
    };
    assert_eq!(read(options, &WORKER).unwrap(), world(5, 4, 2, "elsewhere", 1));
}

#[test]
fn nothing_is_one_worker_alone() {
    let alone = world(1, 0, 1, "127.0.0.1", 29500);
    assert_eq!(read(PlaceArguments::default(), &[]).unwrap(), alone);
    assert_eq!(read(PlaceArguments::default(), &[("PET_NNODES", ""), ("RANK", "")]).unwrap(), alone);
}

#[test]
fn an_elastic_job_of_fixed_size_meets_at_its_endpoint() {
    let variables = [
        ("PET_NNODES", "2:2"),
        ("PET_NPROC_PER_NODE", "2"),
        ("PET_RDZV_ENDPOINT", "job-worker-0:23456"),
        ("PET_RDZV_BACKEND", "c10d"),
    ];
    let options = PlaceArguments { node_rank: Some(1), ..Default::default() };
    assert_eq!(read(options, &variables).unwrap(), world(2, 1, 2, "job-worker-0", 23456));
    let error = read(PlaceArguments::default(), &variables).unwrap_err().to_string();
    let expected = "the job has 2 nodes, but nothing says which one this is: set PET_NODE_RANK or RANK, or pass \
                    --node-rank (a PyTorchJob sets them where it has a Master)";
    assert_eq!(error, expected);
    assert_eq!(split_endpoint("[::1]:29500"), ("[::1]", Some("29500")));
    assert_eq!(split_endpoint("::1"), ("::1", None));
}

#[test]
fn errors_name_the_variables() {
    let error = |changes: &[(&'static str, &'static str)]| {
        read(PlaceArguments::default(), &replaced(changes)).unwrap_err().to_string()
    };
    assert_eq!(
        error(&[("RANK", "1")]),
        "PET_NODE_RANK is \"2\" but RANK is \"1\"; --node-rank says which counts"
    );
    assert_eq!(
        error(&[("MASTER_ADDR", "other")]),
        "PET_MASTER_ADDR is \"job-master-0\" but MASTER_ADDR is \"other\"; --master-addr says which counts"
    );
    assert_eq!(
        error(&[("WORLD_SIZE", "8")]),
        "WORLD_SIZE is 8, but 3 nodes of 4 processes are 12; --nnodes says how many nodes there are"
    );
    assert_eq!(
        error(&[("PET_NODE_RANK", "3"), ("RANK", "3")]),
        "RANK is \"3\", not below the number of nodes, which is 3"
    );
    assert_eq!(
        error(&[("PET_NPROC_PER_NODE", "some")]),
        "PET_NPROC_PER_NODE is \"some\", not a number, auto, cpu or gpu"
    );
    assert_eq!(error(&[("MASTER_PORT", "99999")]), "MASTER_PORT is \"99999\", not a port");
    assert!(
        error(&[("PET_NNODES", "1:3")]).starts_with("PET_NNODES is \"1:3\": the nodes of a job whose number")
    );
    assert_eq!(error(&[("PET_NNODES", "0")]), "PET_NNODES is \"0\", not a number from 1");
    assert_eq!(error(&[("PET_NPROC_PER_NODE", "gpu")]), Error::NoGpu.to_string());
    let far = read(PlaceArguments { nnodes: Some("2".into()), ..Default::default() }, &[("RANK", "0")]);
    assert!(far.unwrap_err().to_string().contains("where rank 0 is: set PET_MASTER_ADDR or MASTER_ADDR"));
    let options = PlaceArguments { master_port: Some(0), ..Default::default() };
    let error = read(options, &WORKER).unwrap_err().to_string();
    assert_eq!(error, "--master-port is \"0\", not a port that all 3 nodes know");
}
