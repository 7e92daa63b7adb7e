# sh client.sh shell|tools FIRST NAME COUNT MOST PATH…: see tests/clients/senders.py; for every POSIX shell
of=$1 number=$2 name=$3 count=$4 most=$5
shift 5

content() { seq "$2" | sed "s/.*/$1/" | tr '\n' ' '; }
head='{"files":{"a.txt":{"content":"'
rest() { printf '"}},"summary":{"colour":"red","who":"%s"}}' "$1"; }

# each: WAY PATH WHO TIMES
group() { { printf %s "$head" && content "$2" "$3" && rest "$2"; } >"$1"; }
piped() { { printf %s "$head" && content "$2" "$3" && rest "$2"; } | cat >"$1"; }
descriptor() {
    exec 5>"$1" && printf %s "$head" >&5 && content "$2" "$3" | cat >&5 && (rest "$2" >&5)
    set -- $?
    exec 5>&-
    return "$1"
}
append() { (printf %s "$head" && content "$2" "$3" | cat && rest "$2") >>"$1"; }
teed() { { printf %s "$head" && content "$2" "$3" && rest "$2"; } | tee "$1" >"$scratch.teed"; }
dumped() { { printf %s "$head" && content "$2" "$3" && rest "$2"; } | dd bs=700 of="$1" status=none; }

# with a file: what copies
file() { { printf %s "$head" && content "$1" "$2" && rest "$1"; } >"$scratch"; }
copied() { file "$2" "$3" && cp "$scratch" "$1"; }
preserved() { file "$2" "$3" && cp -p "$scratch" "$1"; }
blocks() { file "$2" "$3" && dd if="$scratch" of="$1" bs=1k conv=notrunc status=none; }
synced() { file "$2" "$3" && rsync --inplace --times --perms "$scratch" "$1"; }
# who looks at the copy afterwards sees the outcome
cloned() {
    file "$2" "$3" &&
        rclone --config '' copyto --retries 1 --low-level-retries 1 --ignore-times --ignore-size --ignore-checksum "$scratch" "$1"
}

if [ "$of" = shell ]; then
    ways='group piped descriptor append teed dumped'
else
    ways='copied preserved blocks synced cloned'
fi

sender() {
    scratch=$TMPDIR/$name-$number
    n=0
    while [ "$n" -lt "$count" ]; do
        who=$name-$number-$n
        if "$way" "$path" "$who" $((1 + n * 37 % most)); then echo "$who ok"; else echo "$who failed"; fi
        n=$((n + 1))
    done
}

next() { ways="${ways#* } ${ways%% *}"; }
while [ "$number" -gt 0 ]; do
    next
    number=$((number - 1))
done
for path; do
    way=${ways%% *}
    sender &
    next
    number=$((number + 1))
done
wait
