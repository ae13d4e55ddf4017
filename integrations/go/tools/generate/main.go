// Command generate writes the Go code of proto/scopeward/v1 into the client module; with -check it only compares.
//
// Run it by ../generate.sh, in this folder: the versions of the compiler and the plugins are those of go.mod.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

const (
	protoFolder  = "../../../proto"
	targetFolder = "../scopeward/scopewardv1"
)

func main() {
	log.SetFlags(0)
	onlyCompare := flag.Bool("check", false, "compare with what is there, and write nothing")
	flag.Parse()
	files, err := generated()
	if err != nil {
		log.Fatal(err)
	}
	if *onlyCompare {
		err = compare(files)
	} else {
		err = write(files)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// generated returns the files as they should be, by name.
func generated() (map[string]string, error) {
	paths, err := filepath.Glob(filepath.Join(protoFolder, "scopeward/v1/*.proto"))
	if err != nil {
		return nil, err
	}
	names := make([]string, len(paths))
	for i, path := range paths {
		names[i] = "scopeward/v1/" + filepath.Base(path)
	}
	compiler := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{protoFolder}}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	compiled, err := compiler.Compile(context.Background(), names...)
	if err != nil {
		return nil, err
	}
	request := &pluginpb.CodeGeneratorRequest{FileToGenerate: names, Parameter: proto.String("paths=source_relative")}
	seen := map[string]bool{}
	for _, file := range compiled {
		request.ProtoFile = appendWithImports(request.ProtoFile, seen, file)
	}
	files := map[string]string{}
	for _, plugin := range []string{"protoc-gen-go", "protoc-gen-go-grpc"} {
		if err := run(plugin, request, files); err != nil {
			return nil, fmt.Errorf("%s: %w", plugin, err)
		}
	}
	return files, nil
}

// appendWithImports appends a file after the files that it imports, each once, as plugins want them.
func appendWithImports(
	all []*descriptorpb.FileDescriptorProto, seen map[string]bool, file protoreflect.FileDescriptor,
) []*descriptorpb.FileDescriptorProto {
	if seen[file.Path()] {
		return all
	}
	seen[file.Path()] = true
	for i := range file.Imports().Len() {
		all = appendWithImports(all, seen, file.Imports().Get(i).FileDescriptor)
	}
	return append(all, protoutil.ProtoFromFileDescriptor(file))
}

func run(plugin string, request *pluginpb.CodeGeneratorRequest, files map[string]string) error {
	input, err := proto.Marshal(request)
	if err != nil {
		return err
	}
	command := exec.Command("go", "tool", plugin)
	command.Stdin, command.Stderr = bytes.NewReader(input), os.Stderr
	output, err := command.Output()
	if err != nil {
		return err
	}
	var response pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(output, &response); err != nil {
		return err
	}
	if response.Error != nil {
		return errors.New(response.GetError())
	}
	for _, file := range response.File {
		files[filepath.Base(file.GetName())] = file.GetContent()
	}
	return nil
}

func present() ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(targetFolder, "*.pb.go"))
	for i, path := range paths {
		paths[i] = filepath.Base(path)
	}
	return paths, err
}

func compare(files map[string]string) error {
	names, err := present()
	if err != nil {
		return err
	}
	var stale []string
	for _, name := range names {
		if _, wanted := files[name]; !wanted {
			stale = append(stale, name)
		}
	}
	for name, text := range files {
		if content, err := os.ReadFile(filepath.Join(targetFolder, name)); err != nil || string(content) != text {
			stale = append(stale, name)
		}
	}
	if stale != nil {
		slices.Sort(stale)
		return fmt.Errorf("not current: %s; run generate.sh", strings.Join(stale, ", "))
	}
	return nil
}

func write(files map[string]string) error {
	names, err := present()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := os.Remove(filepath.Join(targetFolder, name)); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(targetFolder, 0o755); err != nil {
		return err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(targetFolder, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
