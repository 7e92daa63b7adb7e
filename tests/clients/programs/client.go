// client FIRST NAME COUNT MOST PATH…: see tests/clients/senders.py
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

const size = 3000

type job struct {
	file  *os.File
	piece []byte
	done  chan error
}

// pieces of all messages, each written by whichever goroutine is free
var jobs = make(chan job)

func write(file *os.File, data []byte) error {
	for len(data) > 0 {
		piece := data[:min(size, len(data))]
		done := make(chan error)
		jobs <- job{file, piece, done}
		if err := <-done; err != nil {
			return err
		}
		data = data[len(piece):]
	}
	return nil
}

func buffered(file *os.File, data []byte) error {
	writer := bufio.NewWriterSize(file, size)
	if _, err := io.Copy(writer, io.LimitReader(strings.NewReader(string(data)), int64(len(data)))); err != nil {
		return err
	}
	return writer.Flush()
}

func whole(file *os.File, data []byte) error {
	_, err := file.Write(data)
	return err
}

func min(a, b int) int {
	if a < b {
		return a
	}
	return b
}

type way struct {
	flags int
	write func(*os.File, []byte) error
}

var ways = []way{
	{os.O_TRUNC, write},
	{0, buffered},
	{os.O_APPEND, write},
	{os.O_TRUNC, whole},
}

func send(way way, path string, data []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|way.flags, 0)
	if err != nil {
		return err
	}
	if err = way.write(file, data); err != nil {
		file.Close()
		return err
	}
	return file.Close()
}

func sender(way way, name, path string, count, most int) {
	for n := 0; n < count; n++ {
		who := fmt.Sprintf("%s-%d", name, n)
		content := strings.Repeat(who+" ", 1+n*37%most)
		text := `{"files":{"a.txt":{"content":"` + content + `"}},"summary":{"colour":"red","who":"` + who + `"}}`
		said := "ok"
		if err := send(way, path, []byte(text)); err != nil {
			said = err.Error()
			var number syscall.Errno
			if errors.As(err, &number) {
				said = number.Error()
			}
		}
		fmt.Println(who, said)
	}
}

func main() {
	first, _ := strconv.Atoi(os.Args[1])
	name := os.Args[2]
	count, _ := strconv.Atoi(os.Args[3])
	most, _ := strconv.Atoi(os.Args[4])
	for n := 0; n < 8; n++ {
		go func() {
			for job := range jobs {
				_, err := job.file.Write(job.piece)
				job.done <- err
			}
		}()
	}
	var group sync.WaitGroup
	for number, path := range os.Args[5:] {
		group.Add(1)
		go func(number int, path string) {
			sender(ways[(first+number)%len(ways)], fmt.Sprintf("%s-%d", name, number), path, count, most)
			group.Done()
		}(number, path)
	}
	group.Wait()
}
