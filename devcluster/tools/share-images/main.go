// Command share-images gives nodes the images of a store without a copy: the nodes' containerds know
// them as their own, but blobs and layers are symbolic links into the store.
//
// That is sound because both are never written once they are there. A node's writable layers are on
// its own disk, and a node that removes an image removes links. The store keeps what it has lent, by a
// lease, also when an image of the same name takes the place of one.
//
//	share-images -store SOCKET=ROOT -node SOCKET=ROOT [-node SOCKET=ROOT ...]
//
// SOCKET is where a containerd listens, ROOT its directory.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// What the kubelet runs is in this namespace.
	namespace   = "k8s.io"
	snapshotter = "overlayfs"
	lease       = "lent-to-nodes"
	// The kubelet collects no image that has this label: it could not be pulled again.
	pinned = "io.cri-containerd.pinned"
)

// A place is one containerd.
type place struct {
	*containerd.Client
	root string
}

type places []place

func (p *places) String() string { return "" }

func (p *places) Set(text string) error {
	socket, root, found := strings.Cut(text, "=")
	if !found {
		return errors.New("want SOCKET=ROOT")
	}
	client, err := containerd.New(socket, containerd.WithDefaultNamespace(namespace))
	if err != nil {
		return fmt.Errorf("%s: %w", socket, err)
	}
	*p = append(*p, place{client, root})
	return nil
}

func (p place) blob(digest digest.Digest) string {
	blobs := filepath.Join(p.root, "io.containerd.content.v1.content", "blobs")
	return filepath.Join(blobs, digest.Algorithm().String(), digest.Encoded())
}

func main() {
	var stores, nodes places
	flag.Var(&stores, "store", "where the images are: SOCKET=ROOT")
	flag.Var(&nodes, "node", "where they shall be: SOCKET=ROOT; may be repeated")
	flag.Parse()
	if len(stores) != 1 || len(nodes) == 0 || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := share(namespaces.WithNamespace(context.Background(), namespace), stores[0], nodes); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func share(ctx context.Context, store place, nodes []place) error {
	_, err := store.LeasesService().Create(ctx, leases.WithID(lease))
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return err
	}
	all, err := store.ImageService().List(ctx)
	if err != nil {
		return err
	}
	var lent []loan
	for _, image := range all {
		// An entry under the image's id is the kubelet's interface's own.
		if strings.HasPrefix(image.Name, "sha256:") {
			continue
		}
		one, err := lend(ctx, store, image)
		if err != nil {
			return fmt.Errorf("%s in the store: %w", image.Name, err)
		}
		lent = append(lent, one)
	}
	failed := make([]error, len(nodes))
	var done sync.WaitGroup
	for i, node := range nodes {
		done.Go(func() {
			for _, one := range lent {
				if err := take(ctx, store, node, one); err != nil {
					failed[i] = errors.Join(failed[i], fmt.Errorf("%s on %s: %w", one.image.Name, node.root, err))
				}
			}
		})
	}
	done.Wait()
	return errors.Join(failed...)
}

// A loan is an image and all that it is made of.
type loan struct {
	image images.Image
	// The blobs, those first that others refer to.
	blobs []content.Info
	// The layers from the bottom up: names of snapshots, and the directories with the files.
	chain       []digest.Digest
	directories []string
}

// lend finds out what an image is made of, and has the store keep it.
func lend(ctx context.Context, store place, image images.Image) (loan, error) {
	one := loan{image: image}
	platform := platforms.Default()
	children := images.FilterPlatforms(images.ChildrenHandler(store.ContentStore()), platform)
	var blobs []ocispec.Descriptor
	err := images.Walk(ctx, images.HandlerFunc(func(ctx context.Context, at ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		blobs = append(blobs, at)
		return children(ctx, at)
	}), image.Target)
	if err != nil {
		return one, err
	}
	for i := len(blobs) - 1; i >= 0; i-- {
		if err := keep(ctx, store, blobs[i].Digest.String(), "content"); err != nil {
			return one, err
		}
		info, err := store.ContentStore().Info(ctx, blobs[i].Digest)
		if err != nil {
			return one, err
		}
		one.blobs = append(one.blobs, info)
	}
	layers, err := image.RootFS(ctx, store.ContentStore(), platform)
	if err != nil {
		return one, err
	}
	one.chain = identity.ChainIDs(layers)
	for _, name := range one.chain {
		if err := keep(ctx, store, name.String(), "snapshots/"+snapshotter); err != nil {
			return one, err
		}
		directory, err := files(ctx, store, name)
		if err != nil {
			return one, err
		}
		one.directories = append(one.directories, directory)
	}
	return one, nil
}

func keep(ctx context.Context, store place, id, kind string) error {
	return store.LeasesService().AddResource(ctx, leases.Lease{ID: lease}, leases.Resource{ID: id, Type: kind})
}

// files is the directory with the files of a layer.
func files(ctx context.Context, store place, name digest.Digest) (string, error) {
	layers := store.SnapshotService(snapshotter)
	view := "share-images-" + name.String()
	// One that an interrupted run left.
	if err := layers.Remove(ctx, view); err != nil && !errdefs.IsNotFound(err) {
		return "", err
	}
	mounts, err := layers.View(ctx, view, name.String())
	if err != nil {
		return "", err
	}
	defer layers.Remove(ctx, view)
	if len(mounts) == 1 && mounts[0].Type == "bind" {
		return mounts[0].Source, nil
	}
	lower, err := option(mounts, "lowerdir=")
	top, _, _ := strings.Cut(lower, ":")
	return top, err
}

// take has a node know an image as its own.
func take(ctx context.Context, store, node place, one loan) error {
	if known(ctx, node, one) {
		return nil
	}
	ctx, release, err := node.WithLease(ctx)
	if err != nil {
		return err
	}
	defer release(ctx)
	for _, blob := range one.blobs {
		if err := takeBlob(ctx, store, node, blob); err != nil {
			return fmt.Errorf("blob %s: %w", blob.Digest, err)
		}
	}
	parent := ""
	for i, name := range one.chain {
		if err := takeLayer(ctx, node, name.String(), parent, one.directories[i]); err != nil {
			return fmt.Errorf("layer %s: %w", name, err)
		}
		parent = name.String()
	}
	image := images.Image{Name: one.image.Name, Target: one.image.Target, Labels: map[string]string{pinned: "pinned"}}
	for key, value := range one.image.Labels {
		image.Labels[key] = value
	}
	if _, err := node.ImageService().Create(ctx, image); !errdefs.IsAlreadyExists(err) {
		return err
	}
	_, err = node.ImageService().Update(ctx, image)
	return err
}

func known(ctx context.Context, node place, one loan) bool {
	image, err := node.ImageService().Get(ctx, one.image.Name)
	if err != nil || image.Target.Digest != one.image.Target.Digest || len(one.chain) == 0 {
		return false
	}
	top := one.chain[len(one.chain)-1].String()
	_, err = node.SnapshotService(snapshotter).Stat(ctx, top)
	return err == nil
}

func takeBlob(ctx context.Context, store, node place, blob content.Info) error {
	path := node.blob(blob.Digest)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Symlink(store.blob(blob.Digest), path); err != nil && !os.IsExist(err) {
		return err
	}
	// A writer that is told what is to be written finds it written.
	about := ocispec.Descriptor{Digest: blob.Digest, Size: blob.Size}
	writer, err := node.ContentStore().Writer(ctx, content.WithRef("share-images-"+blob.Digest.String()), content.WithDescriptor(about))
	if err == nil {
		defer writer.Close()
		err = writer.Commit(ctx, blob.Size, blob.Digest, content.WithLabels(blob.Labels))
	}
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// takeLayer makes a layer as containerd itself does, but with a link for its files.
func takeLayer(ctx context.Context, node place, name, parent, directory string) error {
	layers := node.SnapshotService(snapshotter)
	if _, err := layers.Stat(ctx, name); err == nil {
		return nil
	}
	key := "share-images-" + name
	// One that an interrupted run left.
	if err := layers.Remove(ctx, key); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	mounts, err := layers.Prepare(ctx, key, parent)
	if err != nil {
		return err
	}
	empty := mounts[0].Source
	if mounts[0].Type != "bind" {
		if empty, err = option(mounts, "upperdir="); err != nil {
			return err
		}
	}
	if err := os.Remove(empty); err != nil {
		return err
	}
	if err := os.Symlink(directory, empty); err != nil {
		return err
	}
	return layers.Commit(ctx, name, key)
}

func option(mounts []mount.Mount, name string) (string, error) {
	for _, one := range mounts {
		for _, option := range one.Options {
			if value, found := strings.CutPrefix(option, name); found {
				return value, nil
			}
		}
	}
	return "", fmt.Errorf("no %s among the options of a layer's mount", name)
}
