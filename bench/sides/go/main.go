// A bare Go consumer: amqp091-go, some goroutines, json.Unmarshal into a struct, one ack each.
//
// It writes the time of each message into the bench's tally, as every side does (see bench/tally.py).
package main

import (
	"encoding/json"
	"log"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"

	amqp "github.com/rabbitmq/amqp091-go"
)

type order struct {
	Index     int    `json:"index"`
	Recipient string `json:"recipient"`
	Subject   string `json:"subject"`
	Text      string `json:"text"`
}

func number(name string) int {
	value, err := strconv.Atoi(os.Getenv(name))
	must(err)
	return value
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// ends returns the second half of the tally's cells.
func ends(path string) []int64 {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	must(err)
	info, err := file.Stat()
	must(err)
	size := int(info.Size())
	bytes, err := syscall.Mmap(int(file.Fd()), 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	must(err)
	cells := unsafe.Slice((*int64)(unsafe.Pointer(&bytes[0])), size/8)
	return cells[size/16:]
}

func main() {
	cells := ends(os.Getenv("BENCH_TALLY"))
	connection, err := amqp.Dial(os.Getenv("BENCH_URL"))
	must(err)
	channel, err := connection.Channel()
	must(err)
	must(channel.Qos(number("BENCH_PREFETCH"), 0, false))
	deliveries, err := channel.Consume(os.Getenv("BENCH_QUEUE"), "", false, false, false, false, nil)
	must(err)
	var group sync.WaitGroup
	for i := 0; i < number("BENCH_THREADS"); i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for delivery := range deliveries {
				var body order
				must(json.Unmarshal(delivery.Body, &body))
				cells[body.Index] = time.Now().UnixNano()
				must(delivery.Ack(false))
			}
		}()
	}
	group.Wait()
}
