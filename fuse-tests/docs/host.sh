# A host in which a page's commands run as they are typed: a root of its own on an ext4 image, another
# disk at /backup, in namespaces of its own for network, mounts and processes. Everything ends with the
# first process of it, and that with its standard input.
# $1: image of the root, $2: image for /backup, $3: an empty directory, $4: the working directory,
# $5: the binary.
set -eu
root=$3
mount -o loop "$1" "$root"
cd "$root"
mkdir backup dev etc old opt proc root run srv sys tmp usr var var/lib work
chmod 1777 tmp
for entry in bin lib lib32 lib64 libx32 sbin; do
    if [ -L "/$entry" ]; then cp -P "/$entry" "$entry"
    elif [ -d "/$entry" ]; then mkdir "$entry" && mount --rbind "/$entry" "$entry"
    fi
done
for entry in dev sys usr; do mount --rbind "/$entry" "$entry"; done
mount -t proc proc proc
for entry in group hosts ld.so.cache nsswitch.conf passwd; do
    if [ -e "/etc/$entry" ]; then cp -L "/etc/$entry" etc; fi
done
printf "192.0.2.1 source.example.org\n192.0.2.2 target.example.org\n" >> etc/hosts
mount --bind "$4" work
mkdir -p etc/systemd/system opt/bin
touch opt/bin/standin
mount --bind "$5" opt/bin/standin
mount -o loop "$2" backup
mkdir -p srv/data srv/web/data
for set in data web; do
    echo text > "srv/$set/file"
    echo "gone soon" > "srv/$set/old"
done
echo 42 > srv/web/data/postmaster.pid
echo rows > srv/web/data/table
# The words of `cargo run`, without the building.
cat > opt/bin/cargo <<'SHIM'
#!/bin/sh
[ "$1 $2 $3" = "run --release --" ] || { echo "not run in a test: cargo $*" >&2; exit 99; }
shift 3
exec standin "$@"
SHIM
chmod 755 opt/bin/cargo
pivot_root . old
umount -l /old
echo up
exec cat > /dev/null
